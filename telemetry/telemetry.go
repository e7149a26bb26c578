// Package telemetry is how Quorate tells what it does: its log and its metrics.
//
// [HCLog] lets libraries that log through hclog, such as hashicorp/raft, write to the process's one slog.Logger, so that every line
// has the same format and level.
//
// [Metrics] are the numbers of one member, by the OpenTelemetry SDK, for Prometheus to scrape. Whoever has something to measure counts
// in plain atomic integers, where that costs nothing, and registers once, with [Register], how to read them: nothing else
// happens until somebody scrapes. A metric has its full name in the source, quorate_ and what it is and its unit, and labels of which
// the values are few and known before; [MaxSeries] bounds them whatever happens. All of them are listed in docs/metrics.md.
package telemetry
