package telemetry

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/attribute"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
)

// Limits of what is measured and of who asks for it.
const (
	// MaxSeries is how many series one metric may have, by its labels. What would be more is added up in one series whose only label
	// of its own is otel_metric_overflow.
	MaxSeries = 256
	// MaxScrapes is how many scrapes are answered at one time; others are told 503.
	MaxScrapes = 4
	// ScrapeTimeout is how long an answer to a scrape may take until it is 503.
	ScrapeTimeout = 10 * time.Second
)

// The labels that every series has.
const (
	ClusterLabel = "cluster"
	NodeLabel    = "node"
)

// Kind is what the values of a metric are.
type Kind string

// The kinds. A gauge goes up and down; a counter only up, from 0 at the start of the process, and its name ends in _total; a histogram
// counts observations in buckets.
const (
	GaugeKind     Kind = "gauge"
	CounterKind   Kind = "counter"
	HistogramKind Kind = "histogram"
)

// Metrics are the numbers of one member. Everything that is measured is registered here once, by the package that knows it, and read
// when somebody scrapes: whoever counts does no more than add to a number of its own. A nil *Metrics measures nothing.
type Metrics struct {
	provider *sdk.MeterProvider
	meter    metric.Meter
	handler  http.Handler
	known    []Described
}

// Described is what is known of a metric before there is any value.
type Described struct {
	Name, Help string
	Kind       Kind
	Labels     []string // besides ClusterLabel and NodeLabel
}

// NewMetrics makes the metrics of a member. All its series have the labels cluster (the site) and node (the member's id), so that the
// metrics of all members may lie in one place.
func NewMetrics(cluster, node string) (*Metrics, error) {
	registry := prometheus.NewRegistry()
	everywhere := prometheus.WrapRegistererWith(prometheus.Labels{ClusterLabel: cluster, NodeLabel: node}, registry)
	for _, process := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := everywhere.Register(process); err != nil {
			return nil, fmt.Errorf("telemetry: %w", err)
		}
	}
	reader, err := exporter.New(
		exporter.WithRegisterer(registry),
		// Names stand in the source as they are scraped, so that either leads to the other.
		exporter.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithoutSuffixes),
		exporter.WithoutScopeInfo(),
		exporter.WithoutTargetInfo(),
		exporter.WithResourceAsConstantLabels(attribute.NewAllowKeysFilter(ClusterLabel, NodeLabel)),
	)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	provider := sdk.NewMeterProvider(sdk.WithReader(reader), sdk.WithCardinalityLimit(MaxSeries),
		sdk.WithResource(resource.NewSchemaless(attribute.String(ClusterLabel, cluster), attribute.String(NodeLabel, node))))
	return &Metrics{
		provider: provider,
		meter:    provider.Meter("quorate"),
		handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{
			MaxRequestsInFlight: MaxScrapes, Timeout: ScrapeTimeout,
			// Numbers that are there are worth more than none: one that fails must not hide the others.
			ErrorHandling: promhttp.ContinueOnError,
		}),
	}, nil
}

// Handler answers scrapes in the text format of Prometheus. It lets in whoever asks.
func (m *Metrics) Handler() http.Handler { return m.handler }

// Known returns what was registered, in the order of the names.
func (m *Metrics) Known() []Described {
	return slices.SortedFunc(slices.Values(m.known), func(a, b Described) int { return strings.Compare(a.Name, b.Name) })
}

// Shutdown ends the metrics: what is scraped after it has no values.
func (m *Metrics) Shutdown(ctx context.Context) error { return m.provider.Shutdown(ctx) }

// Number is what a value may be in the source.
type Number interface {
	~int | ~int64 | ~uint32 | ~uint64 | ~float64 | ~byte
}

// Report takes one value of a metric that has labels, with the values of the labels in their order.
type Report func(value float64, labels ...string)

// Metric is a metric of which the values are found in a T.
type Metric[T any] struct {
	Described
	each func(T, Report)
}

// Gauge is a metric with one value.
func Gauge[T any, N Number](name, help string, value func(T) N) Metric[T] {
	return Metric[T]{Described{name, help, GaugeKind, nil}, func(from T, report Report) { report(float64(value(from))) }}
}

// Counter is a metric with one value that only grows.
func Counter[T any, N Number](name, help string, value func(T) N) Metric[T] {
	return Metric[T]{Described{name, help, CounterKind, nil}, func(from T, report Report) { report(float64(value(from))) }}
}

// GaugeBy is a metric with one value for each combination of labels. There may be MaxSeries of them.
func GaugeBy[T any](name, help string, labels []string, each func(T, Report)) Metric[T] {
	return Metric[T]{Described{name, help, GaugeKind, labels}, each}
}

// CounterBy is a metric with one value that only grows for each combination of labels. There may be MaxSeries of them.
func CounterBy[T any](name, help string, labels []string, each func(T, Report)) Metric[T] {
	return Metric[T]{Described{name, help, CounterKind, labels}, each}
}

// Bit is 1 for true.
func Bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Register adds metrics of which the values come from one call of take in each scrape, so that they are of one moment. An error
// names the metric that is wrong.
func Register[T any](m *Metrics, take func() T, metrics ...Metric[T]) error {
	if m == nil {
		return nil
	}
	instruments := make([]metric.Float64Observable, len(metrics))
	observed := make([]metric.Observable, len(metrics))
	for i, one := range metrics {
		if err := m.add(one.Described); err != nil {
			return err
		}
		var err error
		if one.Kind == CounterKind {
			instruments[i], err = m.meter.Float64ObservableCounter(one.Name, metric.WithDescription(one.Help), metric.WithUnit(one.unit()))
		} else {
			instruments[i], err = m.meter.Float64ObservableGauge(one.Name, metric.WithDescription(one.Help), metric.WithUnit(one.unit()))
		}
		if err != nil {
			return fmt.Errorf("telemetry: %s: %w", one.Name, err)
		}
		observed[i] = instruments[i]
	}
	_, err := m.meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		from := take()
		for i, one := range metrics {
			one.each(from, func(value float64, labels ...string) {
				attributes := make([]attribute.KeyValue, 0, len(labels))
				for j, label := range labels[:min(len(labels), len(one.Labels))] {
					attributes = append(attributes, attribute.String(one.Labels[j], label))
				}
				to.ObserveFloat64(instruments[i], value, metric.WithAttributes(attributes...))
			})
		}
		return nil
	}, observed...)
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	return nil
}

// Histogram counts durations in buckets. A nil one counts nothing.
type Histogram struct{ histogram metric.Float64Histogram }

// Histogram adds a histogram of durations, whose name ends in _seconds. The bounds of its buckets are in seconds and ascend.
func (m *Metrics) Histogram(name, help string, bounds ...float64) (*Histogram, error) {
	if m == nil {
		return nil, nil
	}
	described := Described{name, help, HistogramKind, nil}
	if err := m.add(described); err != nil {
		return nil, err
	}
	h, err := m.meter.Float64Histogram(name, metric.WithDescription(help), metric.WithUnit(described.unit()), metric.WithExplicitBucketBoundaries(bounds...))
	if err != nil {
		return nil, fmt.Errorf("telemetry: %s: %w", name, err)
	}
	return &Histogram{h}, nil
}

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	if h != nil {
		h.histogram.Record(context.Background(), d.Seconds())
	}
}

var (
	// The three ot_opcua_ metrics are named by redundancy.md §8; all others are quorate_.
	nameForm  = regexp.MustCompile(`^(quorate|ot_opcua)(_[a-z0-9]+)+$`)
	labelForm = regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
)

// add checks a metric and notes that it is there.
func (m *Metrics) add(d Described) error {
	refused := func(why string) error { return fmt.Errorf("telemetry: metric %q %s", d.Name, why) }
	switch {
	case !nameForm.MatchString(d.Name):
		return refused("must match " + nameForm.String())
	case strings.HasSuffix(d.Name, "_total") != (d.Kind == CounterKind):
		return refused("must end in _total if it is a counter, and only then")
	case d.Kind == HistogramKind && !strings.HasSuffix(d.Name, "_seconds"):
		return refused("is a histogram and must end in _seconds")
	case strings.TrimSpace(d.Help) == "":
		return refused("has no help text")
	case slices.ContainsFunc(m.known, func(o Described) bool { return o.Name == d.Name }):
		return refused("is registered twice")
	}
	for _, label := range d.Labels {
		if !labelForm.MatchString(label) || label == ClusterLabel || label == NodeLabel {
			return refused("can't have the label " + label)
		}
	}
	m.known = append(m.known, d)
	return nil
}

// unit is the unit in the notation of OpenTelemetry (UCUM), which the name ends in.
func (d Described) unit() string {
	switch name := strings.TrimSuffix(d.Name, "_total"); {
	case strings.HasSuffix(name, "_seconds"):
		return "s"
	case strings.HasSuffix(name, "_bytes"):
		return "By"
	}
	return "1"
}
