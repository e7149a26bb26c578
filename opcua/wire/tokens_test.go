package wire

import (
	"bytes"
	"testing"

	"github.com/gopcua/opcua/ua"
)

// TestTokensAreRemembered decodes what one connection sends: the same token again and again, others, and messages that are broken off.
func TestTokensAreRemembered(t *testing.T) {
	encode := func(token *ua.NodeID) []byte {
		b, err := AppendMessage(nil, &ua.PublishRequest{RequestHeader: &ua.RequestHeader{
			AuthenticationToken: token, RequestHandle: 7, AdditionalHeader: ua.NewExtensionObject(nil),
		}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	mine, other := ua.NewByteStringNodeID(0, bytes.Repeat([]byte{1}, 48)), ua.NewByteStringNodeID(0, bytes.Repeat([]byte{2}, 48))
	var tokens Tokens
	decode := func(token *ua.NodeID) *ua.NodeID {
		b := encode(token)
		req, err := tokens.DecodeRequest(b, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		clear(b) // What is remembered must not lie in the message.
		got := req.Header().AuthenticationToken
		if got.String() != token.String() || req.Header().RequestHandle != 7 {
			t.Fatalf("decoded %v, handle %d", got, req.Header().RequestHandle)
		}
		return got
	}
	first := decode(mine)
	if decode(mine) != first {
		t.Error("the same token was made anew")
	}
	if b := encode(mine); true {
		if _, err := tokens.DecodeRequest(b[:len(b)-30], Limits{}); err == nil {
			t.Error("a message that was broken off is accepted")
		}
	}
	if decode(mine) != first {
		t.Error("a broken message made the token forgotten")
	}
	second := decode(other)
	if second == first {
		t.Error("another token is taken for the first")
	}
	for _, never := range []*ua.NodeID{ua.NewTwoByteNodeID(0), ua.NewStringNodeID(1, "x"), ua.NewByteStringNodeID(0, bytes.Repeat([]byte{3}, 2*maxToken))} {
		if once := decode(never); decode(never) == once {
			t.Errorf("%v is remembered", never.Type())
		}
	}
	if decode(other) != second {
		t.Error("tokens that are not remembered made the last one forgotten")
	}
	if decode(mine) == first {
		t.Error("more than the last token is kept")
	}
}
