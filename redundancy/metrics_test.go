package redundancy

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	logv1 "quorate/proto/quorate/log/v1"
	"quorate/telemetry"
)

func TestMetricsFollowTheLevelThePeersAndTheLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics, err := telemetry.NewMetrics("plant.example", "m1")
		if err != nil {
			t.Fatal(err)
		}
		expectLines := func(lines ...string) {
			t.Helper()
			synctest.Wait()
			answer := httptest.NewRecorder()
			metrics.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
			for _, line := range lines {
				if !strings.Contains(answer.Body.String(), "\n"+line+"\n") {
					t.Errorf("no line %s in\n%s", line, answer.Body)
				}
			}
		}
		const own = `cluster="plant.example",node="m1"`
		g, p := newGroup(t, "m1", "m2", "m3"), newFakeProber()
		start(t, g, p, func(c *Config) { c.Metrics = metrics })
		expectLines(`ot_opcua_service_level{`+own+`} 1`, `ot_opcua_apply_in_progress{`+own+`} 0`,
			`quorate_redundancy_adopted_generation{`+own+`} 0`, `quorate_redundancy_band{band="NoData",`+own+`} 1`)

		g.publish(server("m1", Primary), server("m2", Backup))
		expectLines(`ot_opcua_service_level{`+own+`} 255`, `ot_opcua_peer_reachable{`+own+`,peer="m2"} 1`,
			`quorate_redundancy_adopted_generation{`+own+`} 1`,
			`quorate_redundancy_band{band="Authoritative",`+own+`} 1`, `quorate_redundancy_band{band="NoData",`+own+`} 0`,
			`quorate_redundancy_probes_total{`+own+`,result="good"} 1`)

		expectLines(`quorate_redundancy_serving_lease_seconds{`+own+`} 5`, `quorate_redundancy_level_changes_total{`+own+`} 1`,
			`quorate_redundancy_applied_generation{`+own+`} 0`)

		lease := &logv1.BeginLease{Server: "m1"}
		g.apply(&logv1.Command{RequestId: "b", Body: &logv1.Command_BeginLease{BeginLease: lease}})
		expectLines(`ot_opcua_service_level{`+own+`} 200`, `ot_opcua_apply_in_progress{`+own+`} 1`)
		g.apply(&logv1.Command{RequestId: "e", Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: "m1"}}})
		expectLines(`ot_opcua_service_level{`+own+`} 255`, `ot_opcua_apply_in_progress{`+own+`} 0`)

		p.fail("m2", errRefused)
		time.Sleep(3 * 2 * time.Second)
		expectLines(`ot_opcua_service_level{`+own+`} 230`, `ot_opcua_peer_reachable{`+own+`,peer="m2"} 0`,
			`quorate_redundancy_probes_total{`+own+`,result="failed"} 3`)

		// A peer that is no longer one has no series.
		g.publish(server("m1", Primary), server("m3", Backup))
		expectLines(`ot_opcua_peer_reachable{` + own + `,peer="m3"} 1`)
		answer := httptest.NewRecorder()
		metrics.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
		if strings.Contains(answer.Body.String(), `peer="m2"`) {
			t.Error("m2 is still shown")
		}
	})
}
