package opcua

import (
	"fmt"
	"testing"

	"github.com/gopcua/opcua/id"

	"quorate/opcua/server"
)

// TestLimitsArePublished reads the limits of services as clients do.
func TestLimitsArePublished(t *testing.T) {
	_, cfg := serve(t, listen(t), "m1", newGroup(t, "m1"), &fitness{}, func(c *Config) {
		c.Limits = server.Limits{MaxOperations: 71, MaxMethodsPerCall: 72, MaxSelectClauses: 73, MaxWhereOperands: 74, MaxQueueSize: 75}
	})
	for node, want := range map[uint32]uint32{
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead:          71,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerWrite:         71,
		id.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall: 71,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerMethodCall:    72,
		id.Server_ServerCapabilities_MaxSelectClauseParameters:                73,
		id.Server_ServerCapabilities_MaxWhereClauseParameters:                 74,
		id.Server_ServerCapabilities_MaxMonitoredItemsQueueSize:               75,
	} {
		if got := values(t, cfg, fmt.Sprintf("i=%d", node))[0]; got != want {
			t.Errorf("i=%d is %v, want %d", node, got, want)
		}
	}
}
