package interop

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/certstore"
)

const (
	rightPassword = "correct horse battery staple"
	wrongPassword = "incorrect horse battery staple"
	// freeFailures is how many wrong passwords a name has before it must wait, and nameDelay for how long at first.
	freeFailures = 3
	nameDelay    = time.Second
	// freeAddressFailures is how many an address has.
	freeAddressFailures = 10
	// delayRounds bounds how often guessing begins anew where this machine was slower than the delay.
	delayRounds = 2
	// letInLimit bounds the wait for a name that has failed to be let in again.
	letInLimit = 20 * time.Second
	retryEvery = 200 * time.Millisecond
)

// guarded is a member's security as one client sees it: each case is a row of the table.
type guarded struct {
	contender
	table    *compatibility
	endpoint string
	member   administrator
	known    identity // an application that is trusted
}

// encrypted is the security of attempts that are not about it.
var encrypted = security{"SignAndEncrypt", "Basic256Sha256"}

// in is an attempt as the application that is trusted.
func (g *guarded) in() attempt { return attempt{security: encrypted, application: g.known} }

func (g *guarded) by(user, password string) attempt {
	a := g.in()
	a.user, a.password = user, password
	return a
}

func (g *guarded) attempt(ctx context.Context, t *testing.T, a attempt) outcome {
	t.Helper()
	if a.claims == "" {
		a.claims = a.application.uri
	}
	return g.try(ctx, t, a)
}

// refused wants a status to refuse an attempt.
func (g *guarded) refused(ctx context.Context, t *testing.T, what string, a attempt, want ua.StatusCode) {
	t.Helper()
	if o := g.attempt(ctx, t, a); !strings.EqualFold(o.Refused, statusName(want)) {
		t.Errorf("%s: %+v, want %s", what, o, statusName(want))
	}
}

// letIn wants an attempt to read, and not to write.
func (g *guarded) letIn(ctx context.Context, t *testing.T, what string, a attempt) outcome {
	t.Helper()
	o := g.attempt(ctx, t, a)
	if o.Refused != "" || o.Read != "Good" || o.Write != statusName(ua.StatusBadNotWritable) {
		t.Errorf("%s: %+v, want to read, and not to write", what, o)
	}
	return o
}

// row runs a case and, if all is well, marks it in the table.
func (g *guarded) row(t *testing.T, set, service, what string, do func(t *testing.T)) {
	if t.Run(service+"/"+what, do) {
		g.table.ran(g.name, step{set, service, what})
	}
}

// run takes a client through logins, roles and certificates that are refused.
func (g *guarded) run(ctx context.Context, t *testing.T) {
	user := func(role string) string { return g.name + "-" + role }
	for _, role := range []string{"viewer", "operator", "administrator", "guessed"} {
		g.member.addUser(t, user(role), strings.Replace(role, "guessed", "viewer", 1), rightPassword)
	}
	person, stranger := newIdentity(t, "urn:quorate:interop:person", newKey(t, 2048), nil), newIdentity(t, "urn:quorate:interop:stranger", newKey(t, 2048), nil)
	g.member.addPerson(t, g.name+"-person", "administrator", person)
	every := func(t *testing.T, a attempt) {
		for _, s := range offers() {
			a.security = s
			g.letIn(ctx, t, fmt.Sprint(s), a)
		}
	}
	g.row(t, "Session", "ActivateSession", "a user name with its password, by every policy and mode", func(t *testing.T) {
		every(t, g.by(user("viewer"), rightPassword))
	})
	g.row(t, "Session", "ActivateSession", "a wrong password, and an unknown name: BadUserAccessDenied", func(t *testing.T) {
		g.refused(ctx, t, "a wrong password", g.by(user("viewer"), wrongPassword), ua.StatusBadUserAccessDenied)
		g.refused(ctx, t, "an unknown name", g.by(user("nobody"), rightPassword), ua.StatusBadUserAccessDenied)
	})
	g.row(t, "Session", "ActivateSession", "a name whose password was guessed at has to wait, and no other", func(t *testing.T) {
		g.guess(ctx, t, user("guessed"), user("viewer"))
	})
	g.row(t, "Session", "ActivateSession", "a user's certificate that is trusted, by every policy and mode", func(t *testing.T) {
		a := g.in()
		a.person = &person
		every(t, a)
	})
	g.row(t, "Session", "ActivateSession", "a user's certificate that is not trusted: BadIdentityTokenRejected", func(t *testing.T) {
		a := g.in()
		a.person = &stranger
		g.refused(ctx, t, "a stranger", a, ua.StatusBadIdentityTokenRejected)
	})
	g.row(t, "Session", "ActivateSession", "a user's certificate with another one's key: BadUserSignatureInvalid", func(t *testing.T) {
		thief, a := person, g.in()
		thief.key, thief.pem = stranger.key, stranger.pem
		a.person = &thief
		g.refused(ctx, t, "a thief", a, ua.StatusBadUserSignatureInvalid)
	})
	g.row(t, "Method", "Call", "RequestServerStateChange, for administrators alone", func(t *testing.T) {
		anonymous, certified := g.in(), g.in()
		certified.person = &person
		for who, a := range map[string]attempt{
			"nobody in particular": anonymous, "a viewer": g.by(user("viewer"), rightPassword), "an operator": g.by(user("operator"), rightPassword),
		} {
			a.change = []string{"Suspended"}
			if o := g.letIn(ctx, t, who, a); !slices.Equal(o.Change, []string{"BadUserAccessDenied"}) {
				t.Errorf("%s: %v", who, o.Change)
			}
		}
		for who, a := range map[string]attempt{"by password": g.by(user("administrator"), rightPassword), "by certificate": certified} {
			a.change = []string{"Suspended", "Running"}
			if o := g.letIn(ctx, t, who, a); !slices.Equal(o.Change, []string{"Good", "Good"}) {
				t.Errorf("an administrator %s: %v", who, o.Change)
			}
		}
	})
	g.certificates(ctx, t)
}

// guess has one name wait for guesses, while another is let in from the same address, and waits until the name is let in again.
func (g *guarded) guess(ctx context.Context, t *testing.T, guessed, other string) {
	for round := 1; ; round++ {
		for range freeFailures + 1 {
			g.refused(ctx, t, "a guess", g.by(guessed, wrongPassword), ua.StatusBadUserAccessDenied)
		}
		last := time.Now()
		g.letIn(ctx, t, "another name", g.by(other, rightPassword))
		o := g.attempt(ctx, t, g.by(guessed, rightPassword))
		if o.Refused == "BadUserAccessDenied" {
			break
		}
		if since := time.Since(last); since < nameDelay || round == delayRounds {
			t.Fatalf("%v after %d guesses: %+v, want to be refused for %v", since, freeFailures+1, o, nameDelay)
		}
	}
	again := time.NewTicker(retryEvery)
	defer again.Stop()
	for limit := time.Now().Add(letInLimit); ; <-again.C {
		switch o := g.attempt(ctx, t, g.by(guessed, rightPassword)); {
		case o.Read == "Good":
			return
		case time.Now().After(limit):
			t.Fatalf("still refused after %v: %+v", letInLimit, o)
		}
	}
}

// certificates are those of applications that are refused, and how they are told why.
func (g *guarded) certificates(ctx context.Context, t *testing.T) {
	key := newKey(t, 2048)
	day := 24 * time.Hour
	g.row(t, "Session", "CreateSession", "a certificate for another ApplicationUri: BadCertificateUriInvalid", func(t *testing.T) {
		a := g.in()
		a.claims = "urn:quorate:interop:another"
		g.refused(ctx, t, "another URI", a, ua.StatusBadCertificateURIInvalid)
	})
	for _, c := range []struct {
		what    string
		want    ua.StatusCode
		trusted bool
		bits    int
		change  func(*x509.Certificate)
	}{
		{"a certificate that has expired", ua.StatusBadCertificateTimeInvalid, true, 0, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*day), time.Now().Add(-day)
		}},
		{"a certificate that is not valid yet", ua.StatusBadCertificateTimeInvalid, true, 0, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(day), time.Now().Add(2*day)
		}},
		{"a certificate for other uses", ua.StatusBadCertificateUseNotAllowed, true, 0, func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageDigitalSignature
		}},
		{"a certificate with a key that is too short", ua.StatusBadCertificatePolicyCheckFailed, true, 1024, nil},
		{"a certificate that has expired, and is not trusted", ua.StatusBadSecurityChecksFailed, false, 0, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*day), time.Now().Add(-day)
		}},
	} {
		do := func(t *testing.T) {
			own := key
			if c.bits != 0 {
				own = newKey(t, c.bits)
			}
			a := attempt{security: encrypted, application: newIdentity(t, "urn:quorate:interop:refused", own, c.change)}
			if c.trusted {
				g.member.trust(t, a.application.cert)
			}
			g.channelRefused(ctx, t, a, c.want)
		}
		if c.bits != 0 && g.longKeys {
			continue
		}
		g.row(t, "SecureChannel", "OpenSecureChannel", c.what+": "+statusName(c.want), do)
	}
	g.row(t, "SecureChannel", "OpenSecureChannel", "a certificate that is not trusted: BadSecurityChecksFailed, and let in once it is", func(t *testing.T) {
		a := attempt{security: encrypted, application: newIdentity(t, "urn:quorate:interop:newcomer", key, nil)}
		fingerprint := certstore.Fingerprint(a.application.der)
		g.channelRefused(ctx, t, a, ua.StatusBadSecurityChecksFailed)
		if got := g.member.state(t, fingerprint); got != "rejected" {
			t.Fatalf("the certificate is %q, want rejected", got)
		}
		g.member.trust(t, fingerprint[:12])
		g.letIn(ctx, t, "the newcomer", a)
	})
}

// channelRefused wants a status to end the connection of an attempt. It is heard on the way, since clients drop it.
func (g *guarded) channelRefused(ctx context.Context, t *testing.T, a attempt, want ua.StatusCode) {
	t.Helper()
	way := newCable(t, strings.TrimPrefix(g.endpoint, "opc.tcp://"))
	a.endpoint = way.url()
	if o := g.attempt(ctx, t, a); o.Refused == "" || way.ended() != want {
		t.Errorf("%+v, told %s, want %s", o, statusName(way.ended()), statusName(want))
	}
}

// guessFromOneAddress has an address wait for guesses at many names, while the same user is let in from another.
func guessFromOneAddress(ctx context.Context, t *testing.T, g guarded) {
	guesser := g
	guesser.contender = gopcuaContender(g.endpoint, "127.0.0.3")
	user := g.name + "-viewer"
	g.row(t, "Session", "ActivateSession", "an address from which passwords were guessed has to wait, and no other", func(t *testing.T) {
		for i := range freeAddressFailures {
			guesser.refused(ctx, t, "a guess", guesser.by(fmt.Sprintf("name-%d", i), wrongPassword), ua.StatusBadUserAccessDenied)
		}
		guesser.letIn(ctx, t, "after the guesses that are free", guesser.by(user, rightPassword))
		// Each further guess doubles the delay, so a slow machine gets there too.
		for i := 0; ; i++ {
			guesser.refused(ctx, t, "a guess", guesser.by(fmt.Sprintf("name-%d", freeAddressFailures+i), wrongPassword), ua.StatusBadUserAccessDenied)
			if o := guesser.attempt(ctx, t, guesser.by(user, rightPassword)); o.Refused == "BadUserAccessDenied" {
				break
			} else if i == delayRounds {
				t.Fatalf("not refused: %+v", o)
			}
		}
		g.letIn(ctx, t, "from another address", g.by(user, rightPassword))
	})
}
