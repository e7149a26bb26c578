package opcua

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/certstore"
	"quorate/opcua/login"
	"quorate/opcua/server"
	"quorate/opcua/session"
	quoratev1 "quorate/proto/quorate/v1"
)

// whoAmI has a server say who a session's user is: it calls a method, and the server tells for whom.
func whoAmI(t *testing.T, asked <-chan server.Identity, url string, o session.Options) (who server.Identity, policy string, err error) {
	t.Helper()
	ctx := within(t)
	s, err := session.Open(ctx, url, o)
	if err != nil {
		return who, "", err
	}
	defer s.Close()
	answer, err := session.Call[*ua.CallResponse](ctx, s, &ua.CallRequest{MethodsToCall: []*ua.CallMethodRequest{{
		ObjectID: ua.NewNumericNodeID(0, id.Server), MethodID: ua.NewNumericNodeID(0, id.Server_RequestServerStateChange),
		InputArguments: []*ua.Variant{ua.MustVariant(int32(ua.ServerStateRunning)), ua.MustVariant(time.Time{}), ua.MustVariant(uint32(0)),
			ua.MustVariant(ua.NewLocalizedText("")), ua.MustVariant(false)},
	}}})
	if err != nil {
		return who, "", err
	}
	if status := answer.Results[0].StatusCode; status != ua.StatusOK {
		return who, s.Policy(), status
	}
	return <-asked, s.Policy(), nil
}

func TestClientLogsInUnderEachPolicyAndMode(t *testing.T) {
	asked := make(chan server.Identity, 1)
	g := guard(t, func(c *Config) {
		c.AllowNone = true
		c.SetMaintenance = func(_ context.Context, caller server.Identity, _ *quoratev1.SetMaintenanceRequest) error {
			asked <- caller
			return nil
		}
	})
	app, eve, stranger := certificateOf(t, "urn:demo:client"), certificateOf(t, "urn:demo:eve"), certificateOf(t, "urn:demo:stranger")
	trust(t, g.applications, app)
	trust(t, g.users, eve)
	for _, err := range []error{
		login.Add(g.list, server.RoleNames(), login.User{Name: "ada", Role: "administrator"}, []byte("lovelace")),
		login.AddCertificate(g.list, server.RoleNames(), login.User{Name: "eve", Role: "administrator"}, certstore.Fingerprint(eve.der)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	known := session.Options{Certificate: app.der, Key: app.key}
	ways := []session.Options{{}, known} // Without a certificate the tokens are protected all the same.
	for _, policy := range session.PolicyNames()[1:] {
		for _, mode := range session.ModeNames() {
			way := known
			way.Policy, way.Mode = policy, mode
			ways = append(ways, way)
		}
	}
	for _, way := range ways {
		want := way.Policy
		switch {
		case len(way.Certificate) == 0:
			want = session.None
		case want == "":
			want = session.Aes256Sha256RsaPss
		}
		byName, byCard, nobody, denied, unknown := way, way, way, way, way
		byName.User, byName.Password = "ada", "lovelace"
		byCard.UserCertificate, byCard.UserKey = eve.der, eve.key
		denied.User, denied.Password = "bob", "lovelace"
		unknown.UserCertificate, unknown.UserKey = stranger.der, stranger.key
		for name, o := range map[string]session.Options{"ada": byName, "eve": byCard} {
			who, policy, err := whoAmI(t, asked, g.url, o)
			if err != nil || who != (server.Identity{Name: name, Role: server.RoleAdministrator}) || policy != ua.SecurityPolicyURIPrefix+want {
				t.Errorf("%s by %q %q: %v under %s, %v", name, way.Policy, way.Mode, who, policy, err)
			}
		}
		for want, o := range map[ua.StatusCode]session.Options{
			ua.StatusBadUserAccessDenied: denied, ua.StatusBadIdentityTokenRejected: unknown,
		} {
			if _, _, err := whoAmI(t, asked, g.url, o); !errors.Is(err, want) {
				t.Errorf("by %q %q: %v, want %v", way.Policy, way.Mode, err, want)
			}
		}
		// Nobody is let in, and without security that is not even offered.
		if _, _, err := whoAmI(t, asked, g.url, nobody); !errors.Is(err, ua.StatusBadIdentityTokenRejected) && want != session.None || err == nil {
			t.Errorf("nobody by %q %q: %v", way.Policy, way.Mode, err)
		}
	}
}
