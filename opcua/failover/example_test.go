package failover_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/failover"
)

// A client that prints a value of whichever server is in use, until it is interrupted. The URL is that of any server of the set.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	client, err := failover.New(failover.Config{
		URL:   "opc.tcp://127.0.0.1:4841",
		Nodes: []*ua.NodeID{ua.NewNumericNodeID(0, 2258)}, // CurrentTime
		OnValue: func(v failover.Value) {
			fmt.Println(v.Server, v.Data.Value.Value())
		},
		OnCutOver: func(c failover.CutOver) {
			fmt.Printf("%v: from %s to %s in %v, %d samples lost\n", c.Reason, c.From.URI, c.To.URI, c.Duration, c.Lost)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Run(ctx); ctx.Err() == nil {
		log.Fatal(err)
	}
}
