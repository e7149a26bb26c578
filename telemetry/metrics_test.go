package telemetry

import (
	"context"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scrape returns the lines that a scrape answers with.
func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	answer := httptest.NewRecorder()
	m.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if answer.Code != 200 {
		t.Fatalf("status %d: %s", answer.Code, answer.Body)
	}
	return answer.Body.String()
}

func newMetrics(t *testing.T) *Metrics {
	t.Helper()
	m, err := NewMetrics("plant.example", "m1")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func contains(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
}

type numbers struct {
	level byte
	seen  uint64
	by    map[string]int
}

func TestScrapeShowsWhatIsCounted(t *testing.T) {
	m, now := newMetrics(t), numbers{level: 255, seen: 3, by: map[string]int{"a": 1, "b": 2}}
	taken := 0
	err := Register(m, func() numbers { taken++; return now },
		Gauge("ot_opcua_service_level", "The level.", func(n numbers) byte { return n.level }),
		Counter("quorate_things_total", "Things.", func(n numbers) uint64 { return n.seen }),
		CounterBy("quorate_parts_total", "Parts.", []string{"kind"}, func(n numbers, report Report) {
			for kind, count := range n.by {
				report(float64(count), kind)
			}
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	h, err := m.Histogram("quorate_wait_seconds", "Waits.", 0.01, 0.1)
	if err != nil {
		t.Fatal(err)
	}
	h.Observe(50 * time.Millisecond)
	const own = `{cluster="plant.example",node="m1"}`
	text := scrape(t, m)
	contains(t, text,
		"# HELP ot_opcua_service_level The level.", "# TYPE ot_opcua_service_level gauge", "ot_opcua_service_level"+own+" 255",
		"# TYPE quorate_things_total counter", "quorate_things_total"+own+" 3",
		`quorate_parts_total{cluster="plant.example",kind="a",node="m1"} 1`, `quorate_parts_total{cluster="plant.example",kind="b",node="m1"} 2`,
		"# TYPE quorate_wait_seconds histogram",
		`quorate_wait_seconds_bucket{cluster="plant.example",node="m1",le="0.01"} 0`, `quorate_wait_seconds_bucket{cluster="plant.example",node="m1",le="0.1"} 1`,
	)
	for _, process := range []string{"go_goroutines" + own, "go_memstats_heap_inuse_bytes" + own} {
		if !strings.Contains(text, process+" ") {
			t.Errorf("no %s in\n%s", process, text)
		}
	}
	if taken != 1 {
		t.Errorf("the numbers were taken %d times for one scrape", taken)
	}
	now = numbers{level: 100, seen: 4}
	text = scrape(t, m)
	contains(t, text, "ot_opcua_service_level"+own+" 100", "quorate_things_total"+own+" 4")
	if strings.Contains(text, "quorate_parts_total{") {
		t.Errorf("what is no longer reported is still there:\n%s", text)
	}
	var names []string
	for _, d := range m.Known() {
		names = append(names, d.Name)
	}
	if got := strings.Join(names, " "); got != "ot_opcua_service_level quorate_parts_total quorate_things_total quorate_wait_seconds" {
		t.Errorf("known are %s", got)
	}
	if err := m.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	m := newMetrics(t)
	err := Register(m, func() int { return 2 * MaxSeries }, GaugeBy("quorate_peers", "Peers.", []string{"peer"}, func(n int, report Report) {
		for i := range n {
			report(1, strconv.Itoa(i))
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	text := scrape(t, m)
	if n := strings.Count(text, "\nquorate_peers{"); n != MaxSeries {
		t.Errorf("%d series, want %d", n, MaxSeries)
	}
	if !strings.Contains(text, `otel_metric_overflow="true"`) {
		t.Error("nothing tells of those that are left out")
	}
}

func TestMetricsThatAreWronglyDescribed(t *testing.T) {
	m := newMetrics(t)
	one := func(int) int { return 1 }
	by := func(int, Report) {}
	for want, metric := range map[string]Metric[int]{
		`metric "other_things" must match`:                                     Gauge("other_things", "h", one),
		`metric "quorate_Things" must match`:                                   Gauge("quorate_Things", "h", one),
		`metric "quorate_things" must end in _total`:                           Counter("quorate_things", "h", one),
		`metric "quorate_things_total" must end in _total if it is a counter,`: Gauge("quorate_things_total", "h", one),
		`metric "quorate_a" has no help text`:                                  Gauge("quorate_a", " ", one),
		`metric "quorate_b" can't have the label node`:                         GaugeBy("quorate_b", "h", []string{"node"}, by),
		`metric "quorate_c" can't have the label A`:                            GaugeBy("quorate_c", "h", []string{"A"}, by),
	} {
		if err := Register(m, func() int { return 0 }, metric); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	twice := Gauge("quorate_d", "h", one)
	if err := Register(m, func() int { return 0 }, twice, twice); err == nil || !strings.Contains(err.Error(), `"quorate_d" is registered twice`) {
		t.Errorf("error %v", err)
	}
	if _, err := m.Histogram("quorate_e", "h"); err == nil || !strings.Contains(err.Error(), "must end in _seconds") {
		t.Errorf("error %v", err)
	}
}

func TestNoMetricsMeasureNothing(t *testing.T) {
	var m *Metrics
	if err := Register(m, func() int { panic("asked") }, Gauge("quorate_a", "h", func(n int) int { return n })); err != nil {
		t.Error(err)
	}
	h, err := m.Histogram("quorate_a_seconds", "h")
	if err != nil {
		t.Error(err)
	}
	h.Observe(time.Second)
}
