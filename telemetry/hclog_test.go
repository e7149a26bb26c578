package telemetry

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestHCLogWritesToSlog(t *testing.T) {
	var out bytes.Buffer
	levels := &slog.LevelVar{}
	levels.Set(slog.LevelInfo)
	l := HCLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: levels})))
	args := []any{"servers", hclog.Fmt("%d of %s", 2, "x"), "n", 7}
	l.With("member", "m1").Named("raft").Info("updating", args...)
	l.Debug("unheard")
	l.Log(hclog.Off, "unheard")
	l.StandardLogger(nil).Print("from log")
	got := out.String()
	for _, want := range []string{"level=INFO", "msg=updating", "member=m1", `servers="2 of x"`, "n=7", `msg="from log"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%q isn't in %s", want, got)
		}
	}
	if strings.Contains(got, "unheard") {
		t.Errorf("a line below the level was written: %s", got)
	}
	if _, ok := args[1].(hclog.Format); !ok {
		t.Error("the caller's arguments were changed")
	}
	for level, want := range map[slog.Level]hclog.Level{
		slog.LevelDebug - 4: hclog.Trace, slog.LevelDebug: hclog.Debug, slog.LevelInfo: hclog.Info,
		slog.LevelWarn: hclog.Warn, slog.LevelError: hclog.Error, slog.LevelError + 4: hclog.Off,
	} {
		levels.Set(level)
		if got := l.GetLevel(); got != want {
			t.Errorf("level %v, want %v", got, want)
		}
	}
	if n := l.Named("a").Named("b").Name(); n != "a.b" {
		t.Errorf("name %s", n)
	}
	HCLog(nil).Error("into nothing")
}
