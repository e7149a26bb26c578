package browser

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"quorate/devgroup"
	"quorate/pki"
	quoratev1 "quorate/proto/quorate/v1"
)

// guarded is one member with mutual TLS on everything, and people of each role.
type guarded struct {
	t      *testing.T
	url    string
	grpc   string
	people map[pki.Role]*pki.Credentials
}

// configuration of the member; the address of each port is filled in.
const configuration = `member: m1
site: plant.example
dataDir: %[1]s/data
raft: {address: 127.0.0.1:%[5]d}
grpc: {address: 127.0.0.1:%[2]d}
http: {address: 127.0.0.1:%[3]d}
opcua: {address: 127.0.0.1:%[4]d}
tls: {ca: %[1]s/pki/ca.pem, cert: %[1]s/pki/members/m1.pem, key: %[1]s/pki/members/m1.key}
bootstrap: [{member: m1, raft: 127.0.0.1:%[5]d}]
`

func startGuarded(t *testing.T) *guarded {
	t.Helper()
	binary, err := devgroup.Built()
	if err != nil {
		t.Fatal(err)
	}
	base, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	authority := filepath.Join(dir, "pki")
	if err := pki.Init(authority, "plant.example"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := pki.Issue(authority, pki.IssueRequest{Member: "m1", Hosts: []string{"127.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	g := &guarded{t: t, url: fmt.Sprintf("https://127.0.0.1:%d", base+2), grpc: fmt.Sprintf("127.0.0.1:%d", base+1), people: make(map[pki.Role]*pki.Credentials)}
	for role, name := range map[pki.Role]string{pki.RoleViewer: "vera", pki.RoleOperator: "otto", pki.RoleAdministrator: "anna"} {
		cert, key, err := pki.Issue(authority, pki.IssueRequest{Person: name, Role: role})
		if err != nil {
			t.Fatal(err)
		}
		if g.people[role], err = pki.Load(cert, key, filepath.Join(authority, pki.AuthorityFile)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "m1.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, dir, base+1, base+2, base+3, base+4), 0o600); err != nil {
		t.Fatal(err)
	}
	var log devgroup.Output
	member := exec.Command(binary, "serve", "--config", file)
	member.Stdout, member.Stderr = &log, &log
	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := member.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := member.Wait(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the member said:\n%s", log.String())
		}
	})
	g.ready()
	g.publish()
	return g
}

// client asks as somebody of a role.
func (g *guarded) client(role pki.Role) *http.Client {
	transport := &http.Transport{TLSClientConfig: g.people[role].ClientTLS(), ForceAttemptHTTP2: true}
	g.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: stepLimit, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (g *guarded) ready() {
	g.t.Helper()
	client := g.client(pki.RoleViewer)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(stepLimit); ; <-tick.C {
		response, err := client.Get(g.url + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("the member isn't ready: %v", err)
		}
	}
}

// publish publishes a set of the one server, as soon as the member has told the group of itself.
func (g *guarded) publish() {
	g.t.Helper()
	conn, err := grpc.NewClient(g.grpc, grpc.WithTransportCredentials(credentials.NewTLS(g.people[pki.RoleOperator].ClientTLS())))
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(g.t.Context(), stepLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		var first uint64
		_, err := quoratev1.NewTopologyServiceClient(conn).PublishTopology(ctx, &quoratev1.PublishTopologyRequest{
			RequestId: fmt.Sprint("first-", i), ExpectedGeneration: &first, Topology: &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{{
				Id: "line-a", Mode: "NONE", Servers: []*quoratev1.RedundantServer{{Member: "m1", Role: "Primary", ApplicationUri: "urn:plant:m1", EndpointUrl: "opc.tcp://127.0.0.1:4841", HealthUrl: g.url + "/healthz"}},
			}}},
		})
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			g.t.Fatal(err)
		}
	}
}

// said is an answer, read.
type said struct {
	code int
	body string
}

func (g *guarded) do(role pki.Role, method, path, form string, headers ...string) said {
	g.t.Helper()
	request, err := http.NewRequestWithContext(g.t.Context(), method, g.url+path, strings.NewReader(form))
	if err != nil {
		g.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := g.client(role).Do(request)
	if err != nil {
		g.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return said{response.StatusCode, string(body)}
}

// forgeries are forms of every change, made by hand.
var forgeries = map[string]string{
	"/ui/redundancy/line-a/swap":        "request=forged&based=1&to=m2",
	"/ui/redundancy/line-a/resume":      "request=forged",
	"/ui/redundancy/line-a/rollback":    "request=forged&based=1",
	"/ui/redundancy/line-a/maintenance": "request=forged&server=m1&active=true",
	"/ui/members/transfer":              "request=forged&to=m1",
}

// TestRolesAreThoseOfTheCertificate asks a member with mutual TLS: what is offered goes with the role, and what is forged is refused by the services.
func TestRolesAreThoseOfTheCertificate(t *testing.T) {
	browser := startBrowser(t)
	g := startGuarded(t)
	set := "/ui/redundancy/line-a"
	for role, name := range map[pki.Role]string{pki.RoleViewer: "vera", pki.RoleOperator: "otto", pki.RoleAdministrator: "anna"} {
		page := g.do(role, http.MethodGet, set, "")
		if page.code != http.StatusOK || !strings.Contains(page.body, name) || !strings.Contains(page.body, role.String()) {
			t.Errorf("%s: %d\n%s", role, page.code, page.body)
		}
		if offered := strings.Contains(page.body, "Maintenance…"); offered != (role >= pki.RoleOperator) {
			t.Errorf("%s is offered maintenance: %v", role, offered)
		}
	}
	for path, form := range forgeries {
		if path == set+"/swap" {
			// The draft of a swap is made first, and a set of one server has none: a refusal, too, but not of the role.
			continue
		}
		answer := g.do(pki.RoleViewer, http.MethodPost, path, form)
		if answer.code != http.StatusForbidden || !strings.Contains(answer.body, "PERMISSION_DENIED") {
			t.Errorf("a forged %s: %d\n%s", path, answer.code, answer.body)
		}
		// Nor does a page of another site get an administrator's browser to do it.
		for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://elsewhere.example"}} {
			if answer := g.do(pki.RoleAdministrator, http.MethodPost, path, form, headers...); answer.code != http.StatusForbidden || strings.Contains(answer.body, "PERMISSION_DENIED") {
				t.Errorf("%s by another site: %d\n%s", path, answer.code, answer.body)
			}
		}
	}
	if answer := g.do(pki.RoleOperator, http.MethodPost, "/ui/members/transfer", forgeries["/ui/members/transfer"]); answer.code != http.StatusForbidden {
		t.Errorf("an operator transfers the leadership: %d", answer.code)
	}
	if answer := g.do(pki.RoleOperator, http.MethodPost, set+"/maintenance", forgeries[set+"/maintenance"], "Sec-Fetch-Site", "same-origin"); answer.code != http.StatusSeeOther {
		t.Errorf("an operator's maintenance: %d\n%s", answer.code, answer.body)
	}
	t.Run("a viewer's page is live", func(t *testing.T) { aViewersPageIsLive(browser, t, g) })
	// Without a certificate there is no page.
	if _, err := (&http.Client{Timeout: stepLimit}).Get(g.url + "/ui/"); err == nil {
		t.Error("somebody without a certificate was answered")
	}
}

// aViewersPageIsLive has a browser look with a viewer's certificate. Chromium takes certificates from its user alone, so something between shows it for
// the browser; between that and the member all is as it would be, streams over HTTP/2 included.
func aViewersPageIsLive(browser context.Context, t *testing.T, g *guarded) {
	target, err := url.Parse(g.url)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: g.people[pki.RoleViewer].ClientTLS(), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	through := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: transport, FlushInterval: -1}
	var streams atomic.Int32
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/ui/live/") && streams.Add(1) == 1 {
			// As by a member that has as many streams as it takes.
			http.Error(w, "enough", http.StatusServiceUnavailable)
			return
		}
		through.ServeHTTP(w, r)
	}))
	defer between.Close()
	defer between.CloseClientConnections()
	b := newTab(browser, t)
	b.open(between.URL + "/ui/redundancy/line-a")
	b.shows("vera")
	if offers := eval[int](b, `document.querySelectorAll("main .button").length`); offers != 0 {
		t.Errorf("a viewer is offered %d things to do", offers)
	}
	b.untilLevel("m1", "0")
	if answer := g.do(pki.RoleOperator, http.MethodPost, "/ui/redundancy/line-a/maintenance", "request=r1&server=m1&active=false"); answer.code != http.StatusSeeOther {
		t.Fatalf("maintenance: %d\n%s", answer.code, answer.body)
	}
	b.until(`!document.querySelector("#server-m1 .level.off")`)
	if n := streams.Load(); n != 2 {
		t.Errorf("%d streams, of which the first was refused", n)
	}
}
