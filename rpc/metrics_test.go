package rpc

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"quorate/pki"
	"quorate/telemetry"
)

// get returns the status and the body of an answer.
func get(t *testing.T, client *http.Client, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(testContext(t), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func newMetrics(t *testing.T) *telemetry.Metrics {
	t.Helper()
	metrics, err := telemetry.NewMetrics("demo", "m1")
	if err != nil {
		t.Fatal(err)
	}
	return metrics
}

func TestMetricsAreForViewers(t *testing.T) {
	people := newSite(t)
	n, _ := remembering()
	var ahead atomic.Int64
	h := serve(t, Config{
		Node: n, Credentials: people.member, Metrics: newMetrics(t), Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	for name, who := range map[string]*pki.Credentials{"viewer": people.viewer, "administrator": people.administrator, "member": people.member} {
		client, base := h.httpClient(t, who)
		if code, body := get(t, client, base+"/metrics"); code != 200 || !strings.Contains(body, `quorate_rpc_panics_total{cluster="demo",node="m1"} 0`) {
			t.Errorf("%s: %d, %s", name, code, body)
		}
	}
	// TLS lets in nobody of lesser rank, so that only here a caller without a role can be seen.
	assertRefused(t, mayScrape(caller{name: "nobody"}), codes.PermissionDenied, ReasonPermissionDenied, "")
	client, base := h.httpClient(t, people.viewer)
	bare := people.viewer.ClientTLS()
	bare.GetClientCertificate = nil
	setTLS(client, bare)
	if response, err := client.Get(base + "/metrics"); err == nil {
		response.Body.Close()
		t.Errorf("without a certificate: %d", response.StatusCode)
	}
	client, _ = h.httpClient(t, people.viewer)
	ahead.Store(int64(pki.DefaultValidity + time.Hour))
	if code, body := get(t, client, base+"/metrics"); code != 401 || strings.Contains(body, "quorate_") {
		t.Errorf("with a certificate that has expired: %d, %s", code, body)
	}
}

func TestMetricsInDev(t *testing.T) {
	n, _ := remembering()
	h := serve(t, Config{Node: n, Metrics: newMetrics(t)})
	client, base := h.httpClient(t, nil)
	if code, body := get(t, client, base+"/metrics"); code != 200 || !strings.Contains(body, "# HELP quorate_rpc_calls ") {
		t.Errorf("%d, %s", code, body)
	}
	if code, _, _ := h.restCall(t, "POST", "/metrics", ""); code == 200 {
		t.Error("metrics can be posted to")
	}
	without := serve(t, Config{Node: n})
	client, base = without.httpClient(t, nil)
	if code, _ := get(t, client, base+"/metrics"); code != 404 {
		t.Errorf("without metrics: %d", code)
	}
}
