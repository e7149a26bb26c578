// Command siege attacks the OPC UA servers of a real group in every way of opcua.md §1 and some more, one after the other, and
// measures what others feel of it: another client's reads, clients that come new, the group's heartbeats, and the member itself. It
// prints lines
//
//	RESULT name value unit
//
// and fails if a bound is broken (bounds.go). Attacks are in attacks.go and secure.go.
//
// Attacker, victims and group share a machine, so the attacker is a process of its own with a low priority, and each attack is
// followed by a control run, in which the attacker takes the same processor time and attacks nobody: what is worse
// during the attack than then is the server's own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quorate/bench/process"
)

// siegeNice is the priority of the group and of whoever measures it, where the user may have one.
const siegeNice = -15

// options is what the flags say.
type options struct {
	quorate           string
	data              string
	port              int
	duration, control time.Duration
	only              string
	role              string
}

func main() {
	if role(os.Args) {
		return
	}
	var o options
	flag.StringVar(&o.quorate, "quorate", "bin/quorate", "the binary to attack")
	flag.StringVar(&o.data, "data", "bin", "a folder; each run makes a folder of its own inside and removes it")
	flag.IntVar(&o.port, "base-port", 17400, "where the group's ports begin")
	flag.DurationVar(&o.duration, "duration", time.Second, "how long each attack on each member is measured")
	flag.DurationVar(&o.control, "control", 300*time.Millisecond, "how long each control run is")
	flag.StringVar(&o.only, "only", "", "run only the attacks whose names begin so")
	flag.StringVar(&o.role, "role", "", "attack only the leader or the follower")
	flag.Parse()

	// Other work on the machine is not what is measured. Not everybody may have priority; the control runs show what it is worth.
	restore, err := process.Prioritise(siegeNice)
	if err != nil {
		log.Print("without priority over other work on this machine: ", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err = run(ctx, o)
	if restore != nil {
		err = errors.Join(err, restore())
	}
	if err != nil {
		log.Fatal(err)
	}
}

// role does what this program is started for by itself, if it is.
func role(args []string) bool {
	if len(args) != 2 {
		return false
	}
	var err error
	switch args[1] {
	case attackerFlag:
		err = beAttacker(os.Stdin, os.Stdout)
	case referenceFlag:
		err = beReference(os.Stdout)
	default:
		return false
	}
	if err != nil {
		log.Fatal(err)
	}
	return true
}

// run starts a group, attacks it, and stops it.
func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp(o.data, "siege-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	output, err := os.Create(filepath.Join(dir, "group.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, output.Close()) }()
	s, err := newSiege(ctx, o.quorate, filepath.Join(dir, "group"), o.port, output)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	var broken []string
	for _, a := range attacks {
		if !strings.HasPrefix(a.name, o.only) {
			continue
		}
		for _, role := range []string{leaderRole, followerRole} {
			if !strings.HasPrefix(role, o.role) {
				continue
			}
			out, list, err := s.attack(ctx, a.name, role, o.duration, o.control)
			if err != nil {
				return err
			}
			out.print()
			broken = append(broken, list...)
		}
	}
	if len(broken) > 0 {
		return fmt.Errorf("%d bounds are broken:\n%s", len(broken), strings.Join(broken, "\n"))
	}
	return nil
}
