package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// The few messages of etcd's API that are needed, coded by hand, so that its modules stay out of this one. They cost less to code than generated messages
// would, which is to etcd's advantage: the load shares the machine with the servers. Field numbers are those of etcdserverpb (rpc.proto) and mvccpb (kv.proto).
const (
	methodPut        = "/etcdserverpb.KV/Put"
	methodRange      = "/etcdserverpb.KV/Range"
	methodStatus     = "/etcdserverpb.Maintenance/Status"
	methodMoveLeader = "/etcdserverpb.Maintenance/MoveLeader"
)

// encoded is a message that is encoded already.
type encoded []byte

// putRequest is PutRequest{key, value}.
func putRequest(key, value []byte) encoded {
	b := make([]byte, 0, len(key)+len(value)+8)
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendBytes(b, key)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendBytes(b, value)
}

// rangeRequest is RangeRequest{key}: one key, linearizably.
func rangeRequest(key []byte) encoded {
	b := make([]byte, 0, len(key)+4)
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	return protowire.AppendBytes(b, key)
}

// moveLeaderRequest is MoveLeaderRequest{targetID}.
func moveLeaderRequest(target uint64) encoded {
	return protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), target)
}

// answer is what is looked at in any answer. Of PutResponse it is the header alone.
type answer struct {
	// From ResponseHeader.
	member, revision, term uint64
	// From RangeResponse: the value of the only key, and how many keys there were.
	value []byte
	count uint64
	// From StatusResponse.
	leader uint64

	// kind is the method that was asked, since fields mean different things.
	kind string
}

// fields calls visit with each field of a message: with a number for a varint, with bytes for what has a length. Other types are skipped.
func fields(b []byte, visit func(number protowire.Number, v uint64, bytes []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var v uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := visit(number, v, bytes); err != nil {
			return err
		}
	}
	return nil
}

func (a *answer) decode(b []byte) error {
	return fields(b, func(number protowire.Number, v uint64, bytes []byte) error {
		switch {
		case number == 1:
			return fields(bytes, a.header)
		case a.kind == methodRange && number == 2:
			return fields(bytes, func(number protowire.Number, _ uint64, bytes []byte) error {
				if number == 5 {
					a.value = bytes
				}
				return nil
			})
		case a.kind == methodRange && number == 4:
			a.count = v
		case a.kind == methodStatus && number == 4:
			a.leader = v
		}
		return nil
	})
}

func (a *answer) header(number protowire.Number, v uint64, _ []byte) error {
	switch number {
	case 2:
		a.member = v
	case 3:
		a.revision = v
	case 4:
		a.term = v
	}
	return nil
}

// codec is gRPC's name for what turns messages into bytes.
type codec struct{}

// Name implements encoding.CodecV2: it is what the content type says.
func (codec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(encoded)
	if !ok {
		return nil, fmt.Errorf("a request of type %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	a, ok := v.(*answer)
	if !ok {
		return fmt.Errorf("an answer of type %T", v)
	}
	b := make([]byte, data.Len())
	data.CopyTo(b)
	return a.decode(b)
}

// ask makes one call. All answers but that of MoveLeader have a header.
func ask(ctx context.Context, conn *grpc.ClientConn, method string, request encoded) (answer, error) {
	a := answer{kind: method}
	err := conn.Invoke(ctx, method, request, &a, grpc.ForceCodecV2(codec{}))
	if err == nil && a.member == 0 && method != methodMoveLeader {
		err = errors.New(method + ": an answer without a header")
	}
	return a, err
}
