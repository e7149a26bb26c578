package admin

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// functions are what templates can call. None of them returns HTML that holds anything of what somebody typed.
var functions = template.FuncMap{
	"asset": assetURL,
	"when":  when,
	"exact": exact,
	"short": short,
	"took":  took,
	"count": count,
	"lasts": func(d *durationpb.Duration) string { return lasts(d.AsDuration()) },
	// partitionURL and placementURL are where these are looked at.
	"partitionURL": partitionURL,
	"placementURL": placementURL,
	"join":         func(list []string) string { return strings.Join(list, ", ") },
	"bands":        func() []bandRow { return bandTable },
	// clientKind says what a client of a kind does (PlannedClient.kind).
	"clientKind": func(kind string) string { return clientKinds[kind] },
}

// moment is what has a time: what is stored, or what was worked out here.
type moment interface{ AsTime() time.Time }

// when is a time of day as an element that the browser turns into its own zone, with the age beside it. Without scripts it stays UTC, which it says.
func when(m moment) template.HTML { return timeElement(m, "", "2006-01-02 15:04:05Z") }

// exact is the same to the millisecond, for lists of what follows upon each other.
func exact(m moment) template.HTML { return timeElement(m, " data-exact", "2006-01-02 15:04:05.000Z") }

func timeElement(m moment, attribute, layout string) template.HTML {
	if t, ok := m.(*timestamppb.Timestamp); ok && t == nil {
		return ""
	}
	t := m.AsTime().UTC()
	if t.IsZero() || t.Unix() == 0 {
		return ""
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s"%s>%s</time>`, t.Format("2006-01-02T15:04:05.000Z"), attribute, t.Format(layout)))
}

// instant is a moment that was worked out here.
type instant time.Time

// AsTime implements moment.
func (i instant) AsTime() time.Time { return time.Time(i) }

// digestDigits are as many digits of a digest as tell two topologies apart to a person; the command line shows as many.
const digestDigits = 12

func short(digest string) string { return digest[:min(len(digest), digestDigits)] }

// took writes a duration with as many digits as mean something.
func took(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "<1 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	default:
		return d.Round(time.Second).String()
	}
}

// lasts writes a duration that somebody set: in full, and as short as that can be.
func lasts(d time.Duration) string {
	switch {
	case d%time.Second != 0 && d < time.Second:
		return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', -1, 64) + " ms"
	case d < 2*time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s"
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	default:
		return d.String()
	}
}

// count writes a number with its thousands apart.
func count(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// bandRow is a row of the table of bands, for people.
type bandRow struct{ Band, Primary, Backup, When string }

// bandTable is that of redundancy.md §2, as a legend; what servers do follows from the policies of their set.
var bandTable = []bandRow{
	{"Authoritative", "255", "100", "nothing below applies"},
	{"Isolated", "230", "80", "no other server of the set is reachable"},
	{"Mid-apply", "200", "50", "the server holds an open apply lease"},
	{"Unconfirmed", "190", "70", "the group cannot confirm its role"},
	{"Recovering", "180", "30", "back from a fault"},
	{"InvalidTopology", "2", "2", "servers contradict each other, or the topology"},
	{"NoData", "1", "1", "not initialised, or faulted"},
	{"Maintenance", "0", "0", "an operator declared it"},
}
