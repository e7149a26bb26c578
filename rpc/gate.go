package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	"quorate/node"
	"quorate/pki"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

type gateService struct {
	quoratev1.UnimplementedGateServiceServer
	server *Server
}

// CheckGate checks one gate. One that does not pass is an error.
func (g *gateService) CheckGate(ctx context.Context, request *quoratev1.CheckGateRequest) (*quoratev1.CheckGateResponse, error) {
	view, header, err := g.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	found := view.State.Resolve(request.GetPartition())
	if !passes(found, request.GetEpoch()) {
		return nil, view.State.StaleEpoch(request.GetPartition(), request.GetEpoch())
	}
	return &quoratev1.CheckGateResponse{Header: header, Placement: found.GetWritePlacement(), Epoch: found.GetEpoch()}, nil
}

// passes says whether whoever resolved a partition at an epoch may write to it now (partitions.md §1).
func passes(now *quoratev1.Resolution, epoch uint64) bool {
	return now.GetWritePlacement() != "" && now.GetEpoch() == epoch
}

// CheckGates checks many gates at one revision.
func (g *gateService) CheckGates(ctx context.Context, request *quoratev1.CheckGatesRequest) (*quoratev1.CheckGatesResponse, error) {
	view, header, err := g.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	return checkGates(view.State, header, request), nil
}

func checkGates(state *fsm.State, header *quoratev1.ResponseHeader, request *quoratev1.CheckGatesRequest) *quoratev1.CheckGatesResponse {
	block := make([]quoratev1.GateVerdict, len(request.GetChecks()))
	answer := &quoratev1.CheckGatesResponse{Header: header, Verdicts: make([]*quoratev1.GateVerdict, len(block))}
	for i, check := range request.GetChecks() {
		found := state.Resolve(check.GetPartition())
		verdict := &block[i]
		verdict.Partition, verdict.Epoch, verdict.Phase = check.GetPartition(), found.GetEpoch(), found.GetPhase()
		if passes(found, check.GetEpoch()) {
			verdict.Pass, verdict.Placement = true, found.GetWritePlacement()
		}
		answer.Verdicts[i] = verdict
	}
	return answer
}

// StreamGates is CheckGates for many requests on one stream.
func (g *gateService) StreamGates(stream quoratev1.GateService_StreamGatesServer) error {
	return (&questions[quoratev1.StreamGatesRequest, quoratev1.StreamGatesResponse]{
		server: g.server, stream: stream,
		options: func(q *quoratev1.StreamGatesRequest) *quoratev1.ReadOptions { return q.GetRequest().GetRead() },
		keys:    func(q *quoratev1.StreamGatesRequest) int { return len(q.GetRequest().GetChecks()) },
		answer: func(q *quoratev1.StreamGatesRequest, view node.View) *quoratev1.StreamGatesResponse {
			return &quoratev1.StreamGatesResponse{Response: checkGates(view.State, headerOf(view), q.GetRequest())}
		},
	}).serve()
}

// RegisterInstance makes an instance known.
func (g *gateService) RegisterInstance(ctx context.Context, request *quoratev1.RegisterInstanceRequest) (*quoratev1.RegisterInstanceResponse, error) {
	outcome, err := g.server.propose(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_RegisterInstance{
		RegisterInstance: &logv1.RegisterInstance{Id: request.GetId(), Session: request.GetSession()},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.RegisterInstanceResponse{Header: g.server.headerAfter(outcome), Instance: outcome.GetInstance()}, nil
}

// RenewGate asks for a gate lease. It waits for news, so that it has bounds of its own: as a lease is counted from before the question, an answer that takes
// longer than it lasts is worth nothing; whoever can't wait as long as the leader would is answered at once rather than never; and whoever waits
// is sent to another member when this one stops.
func (g *gateService) RenewGate(ctx context.Context, request *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error) {
	ttl := g.server.config.Node.Local().State.GateTTL()
	ctx, cancel := context.WithTimeout(ctx, ttl)
	defer cancel()
	defer context.AfterFunc(g.server.stopping, cancel)()
	if deadline, _ := ctx.Deadline(); time.Until(deadline) < ttl/4+answerMargin {
		request = proto.CloneOf(request)
		request.NoWait = true
	}
	answer, err := g.server.config.Node.RenewGate(ctx, request)
	switch {
	case err != nil && g.server.stopping.Err() != nil:
		return nil, shuttingDown()
	case err != nil:
		return nil, err
	}
	answer.Header = headerOf(g.server.config.Node.Local())
	answer.Header.Revision = answer.GetRevision()
	return answer, nil
}

// RemoveInstance takes an instance from the list: the session is its holder's right to that, and anybody else has to be an operator.
func (g *gateService) RemoveInstance(ctx context.Context, request *quoratev1.RemoveInstanceRequest) (*quoratev1.RemoveInstanceResponse, error) {
	if who := callerFrom(ctx); request.GetSession() == "" && who.role < pki.RoleOperator {
		return nil, permissionDenied(who, quoratev1.GateService_RemoveInstance_FullMethodName+" without the session", pki.RoleOperator)
	}
	if request.GetSession() == "" && request.GetDrained() {
		return nil, invalid("drained", "only who has the session knows it")
	}
	outcome, err := g.server.propose(ctx, request.GetRequestId(), &logv1.Command{Body: &logv1.Command_RemoveInstance{
		RemoveInstance: &logv1.RemoveInstance{Id: request.GetId(), Session: request.GetSession(), Drained: request.GetDrained()},
	}})
	if err != nil {
		return nil, err
	}
	return &quoratev1.RemoveInstanceResponse{Header: g.server.headerAfter(outcome)}, nil
}

// ListInstances returns the registered instances.
func (g *gateService) ListInstances(ctx context.Context, request *quoratev1.ListInstancesRequest) (*quoratev1.ListInstancesResponse, error) {
	view, header, err := g.server.read(ctx, request.GetRead())
	if err != nil {
		return nil, err
	}
	return &quoratev1.ListInstancesResponse{Header: header, Instances: view.State.Instances()}, nil
}
