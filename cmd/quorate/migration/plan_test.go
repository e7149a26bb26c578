package migration

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

func facts() *Facts {
	return &Facts{
		Settings: &quoratev1.PartitionSettings{
			DrainBarrier: durationpb.New(10 * time.Second), MinDrainBarrier: durationpb.New(5 * time.Second), EarlyFloor: durationpb.New(3 * time.Second),
			GateTtl: durationpb.New(2 * time.Second),
		},
		Placements: map[string]bool{"east": true, "west": true}, Servers: []string{"m1", "m2"},
	}
}

func steps(p *Plan) string {
	var lines []string
	for _, s := range p.Steps {
		lines = append(lines, s.Stage+": "+s.What)
	}
	return strings.Join(lines, "\n")
}

func TestPlanOfAWholeMigration(t *testing.T) {
	p := &quoratev1.Partition{Id: "p1", Phase: active, Placement: "east", Epoch: 4}
	plan := MakePlan(Job{Partition: "p1", To: "west"}, p, &Options{Copy: &scriptedHook{}, Verify: &scriptedHook{}, Final: &scriptedHook{}}, facts())
	want := `begin: draining at epoch 5; writes go on at east
copy: the copy hook runs
verify: the verify hook runs
cutover: nobody may write from epoch 6 on
barrier: 10s
final: the final hook runs once the whole barrier has passed
complete: at west, epoch 7`
	if got := steps(plan); got != want || len(plan.Refused)+len(plan.Waits)+len(plan.Notes) != 0 {
		t.Errorf("got\n%s\n%+v\nwant\n%s", got, plan, want)
	}
	raw, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	// The form that scripts read: every key is always there.
	if got := string(raw); !strings.HasPrefix(got, `{"partition":"p1","from":"east","to":"west","phase":"active","epoch":4,"barrier":"10s","steps":[{"stage":"begin",`) ||
		!strings.HasSuffix(got, `"refused":[],"waits":[],"notes":[]}`) {
		t.Errorf("as JSON it is %s", got)
	}
}

func TestPlanSaysWhatIsInTheWay(t *testing.T) {
	f := facts()
	f.MidApply, f.Instances = []string{"m2", "m9"}, 3
	p := &quoratev1.Partition{Id: "p1", Phase: active, Placement: "east", Epoch: 4, DrainBarrier: durationpb.New(7 * time.Second)}
	plan := MakePlan(Job{Partition: "p1", To: "wset"}, p, &Options{
		Barrier: time.Second, Early: true, RequireVerified: true, Servers: []string{"m2", "m7"},
	}, f)
	for want, in := range map[string][]string{
		"a drain barrier of 1s is less than the least one of the settings, 5s":                                          plan.Refused,
		"m7 is no server of the topology":                                                                               plan.Refused,
		"server m2 is mid-apply, and the cutover waits until it is not":                                                 plan.Waits,
		"without a copy hook it waits until the copy is reported as complete: quorate partition report p1 --copied":     plan.Waits,
		"without a verify hook it waits until the copy is reported as verified: quorate partition report p1 --verified": plan.Waits,
		"placement wset is new: it owns no partition yet":                                                               plan.Notes,
		"3 instances are registered, and each transition waits for their gate leases: 2s at most, and 2 %":              plan.Notes,
		"barrier: 1s, or early: after 3s, once all of 3 registered instances have no write in flight":                   strings.Split(steps(plan), "\n"),
	} {
		found := false
		for _, line := range in {
			found = found || line == want
		}
		if !found {
			t.Errorf("it lacks %q: %+v", want, plan)
		}
	}
	if len(plan.Refused) != 2 || len(plan.Waits) != 3 {
		t.Errorf("plan %+v", plan)
	}
	// Its own barrier comes before that of the settings, and the least one before both.
	for own, want := range map[time.Duration]string{0: "10s", 7 * time.Second: "7s", 2 * time.Second: "5s"} {
		p.DrainBarrier = nil
		if own != 0 {
			p.DrainBarrier = durationpb.New(own)
		}
		if plan := MakePlan(Job{Partition: "p1", To: "west"}, p, &Options{}, f); plan.Barrier != want {
			t.Errorf("a barrier of its own of %v makes %s, want %s", own, plan.Barrier, want)
		}
	}
	plan = MakePlan(Job{Partition: "p1", To: "west"}, p, &Options{Early: true}, facts())
	if notes := strings.Join(plan.Notes, "\n"); notes != "no instance is registered that could say that no write is in flight, and so the whole barrier has to pass" {
		t.Errorf("notes %q", notes)
	}
}

func TestPlanOfWhatHasBegun(t *testing.T) {
	m := &quoratev1.Migration{
		From: "east", To: "west", Actor: &quoratev1.Actor{Name: "ada"}, DrainBarrier: durationpb.New(8 * time.Second), Verified: true,
		Copy: &quoratev1.CopyProgress{Done: 5, Total: 5}, Servers: []string{"m1"},
	}
	p := &quoratev1.Partition{Id: "p1", Phase: draining, Placement: "east", Epoch: 5, Migration: m}
	asked := &Options{Barrier: 9 * time.Second, Early: true, RequireVerified: true, Servers: []string{"m2"}}
	if plan := MakePlan(Job{Partition: "p1", To: "west"}, p, asked, facts()); len(plan.Refused) != 1 ||
		plan.Refused[0] != "partition p1 migrates to west already, begun by ada: --resume goes on with it" {
		t.Errorf("without --resume: %+v", plan)
	}
	plan := MakePlan(resumed(Job{Partition: "p1", To: "west"}), p, asked, facts())
	want := "copy: was copied before\nverify: was verified before\ncutover: nobody may write from epoch 6 on\nbarrier: 8s\ncomplete: at west, epoch 7"
	if steps(plan) != want {
		t.Errorf("got\n%s\nwant\n%s", steps(plan), want)
	}
	wantNotes := `begun by ada at 1970-01-01T00:00:00Z
it has begun, and its barrier stays 8s
it has begun, and its whole barrier has to pass
it has begun, and the group does not require that it is verified
it has begun, and its servers stay east, west, m1`
	if notes := strings.Join(plan.Notes, "\n"); notes != wantNotes {
		t.Errorf("notes\n%s", notes)
	}
	p.Phase, m.CutoverEpoch, m.BarrierLeft = cutover, 5, durationpb.New(2500*time.Millisecond)
	plan = MakePlan(resumed(Job{Partition: "p1", To: "west"}), p, &Options{}, facts())
	if want := "barrier: 2.5s of 8s are left\ncomplete: at west, epoch 6"; steps(plan) != want {
		t.Errorf("got\n%s\nwant\n%s", steps(plan), want)
	}
	plan = MakePlan(resumed(Job{Partition: "p1", To: "north"}), p, &Options{}, facts())
	if len(plan.Refused) != 1 || !strings.Contains(plan.Refused[0], "migrates to west since 1970-01-01T00:00:00Z already, and not to north: complete or abort that first") {
		t.Errorf("%+v", plan)
	}
}

func TestAdmit(t *testing.T) {
	p := &quoratev1.Partition{Id: "p1", Phase: active, Placement: "east", Epoch: 4}
	for want, job := range map[string]Job{
		"":                                  {Partition: "p1", To: "west", ExpectedEpoch: 4},
		"partition p1 is at epoch 4, not 3": {Partition: "p1", To: "west", ExpectedEpoch: 3},
		"partition p1 is at east already":   {Partition: "p1", To: "east"},
	} {
		got := ""
		if err := Admit(job, p); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%+v: %q, want %q", job, got, want)
		}
	}
	if err := Admit(Job{Partition: "p1", To: "east", Resume: true}, p); err != nil {
		t.Error(err)
	}
}

func TestParseProgress(t *testing.T) {
	for line, want := range map[string]Progress{
		"progress 3 10":                            {Done: 3, Total: 10},
		"  progress 3 0 rows  left ":               {Done: 3, Text: "rows left"},
		"progress 42% of it":                       {Done: 4200, Total: 10000, Text: "of it"},
		"progress 0.5%":                            {Done: 50, Total: 10000},
		"progress 100%":                            {Done: 10000, Total: 10000},
		"progress 1 2 a\x00b\xff":                  {Done: 1, Total: 2, Text: "a\x00b�"},
		"progress 1 2 " + strings.Repeat("é", 200): {Done: 1, Total: 2, Text: strings.Repeat("é", 128)},
	} {
		if got, ok := ParseProgress(line); !ok || got != want {
			t.Errorf("%q: %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "progress", "progress ", "progress 3", "progress 11 10", "progress -1 10", "progress 101%", "progress NaN%", "progress x 10",
		"progress 3 y", "progress 1e3 10", "progressing 1 2", "Progress 1 2"} {
		if got, ok := ParseProgress(line); ok {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

// FuzzParseProgress: whatever a hook writes makes progress that the group accepts, or none.
func FuzzParseProgress(f *testing.F) {
	for _, line := range []string{"progress 3 10 rows", "progress 42% x", "progress 18446744073709551615 0", "progress \xff% \xc3", "progress .5%"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		p, ok := ParseProgress(line)
		if !ok {
			return
		}
		if p.Total != 0 && p.Done > p.Total || len(p.Text) > maxProgressText || strings.ToValidUTF8(p.Text, "") != p.Text || strings.ContainsAny(p.Text, "\n\r") {
			t.Errorf("%q: %+v", line, p)
		}
	})
}
