package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/gopcua/opcua/ua"
)

func newOf(m any) any { return reflect.New(reflect.TypeOf(m).Elem()).Interface() }

func newFiller(seed uint64) *filler {
	return &filler{rand.New(rand.NewPCG(seed, 1)), []reflect.Type{
		reflect.TypeFor[ua.KeyValuePair](), reflect.TypeFor[ua.EventFilter](), reflect.TypeFor[ua.DataChangeFilter](),
		reflect.TypeFor[ua.UserNameIdentityToken](), reflect.TypeFor[ua.LiteralOperand](), reflect.TypeFor[ua.DataChangeNotification](),
	}}
}

// FuzzDecodeRequest looks for requests that crash, or that come back different
// after they were encoded again.
func FuzzDecodeRequest(f *testing.F) {
	fill := newFiller(11)
	for _, m := range messages {
		if _, ok := m.(ua.Request); !ok {
			continue
		}
		v := reflect.New(reflect.TypeOf(m).Elem())
		fill.fill(v.Elem(), 0)
		b, err := AppendMessage(nil, v.Interface())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(write(f, nest(200, []byte{byte(ua.TypeIDVariant)}, []byte{0})))
	f.Add(write(f, extensionNest(f, 60)))
	f.Add(write(f, append([]byte{byte(ua.TypeIDInt32) | 0xc0}, u32(4, 1, 2, 3, 4, 2, 2, 2)...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := DecodeRequest(b, Limits{})
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || req != nil {
				t.Fatalf("%T, %v", err, req)
			}
			return
		}
		checkStable(t, req, func(b []byte) (any, error) { return DecodeRequest(b, Limits{}) })
		// A connection that has seen the token decodes the same.
		var tokens Tokens
		for range 2 {
			if again, err := tokens.DecodeRequest(b, Limits{}); err != nil || !sameEncoding(t, req, again) {
				t.Fatalf("with a remembered token: %v", err)
			}
		}
	})
}

// FuzzDecodeResponse does the same with responses, in which everything is that requests
// lack.
func FuzzDecodeResponse(f *testing.F) {
	var responses []any
	fill := newFiller(12)
	for _, m := range messages {
		if _, ok := m.(ua.Response); !ok {
			continue
		}
		v := reflect.New(reflect.TypeOf(m).Elem())
		fill.fill(v.Elem(), 0)
		b, err := Append(nil, v.Interface())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(len(responses)), b)
		responses = append(responses, m)
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		m := responses[int(which)%len(responses)]
		resp := newOf(m)
		if err := Decode(b, resp, Limits{}); err != nil {
			return
		}
		checkStable(t, resp, func(b []byte) (any, error) {
			again := newOf(m)
			return again, Decode(b[4:], again, Limits{}) // without the type id
		})
	})
}

// checkStable encodes a message, decodes that, and encodes it again.
func checkStable(t *testing.T, msg any, decode func([]byte) (any, error)) {
	t.Helper()
	first, err := AppendMessage(nil, msg)
	if err != nil {
		t.Fatalf("decoded, but cannot be encoded: %v", err)
	}
	again, err := decode(first)
	if err != nil {
		t.Fatalf("encoded, but cannot be decoded: %v\n% x", err, first)
	}
	second, err := AppendMessage(nil, again)
	if err != nil || !bytes.Equal(first, second) {
		t.Fatalf("%v\n% x, then\n% x", err, first, second)
	}
}

func sameEncoding(t *testing.T, a, b any) bool {
	t.Helper()
	first, err := AppendMessage(nil, a)
	if err != nil {
		t.Fatal(err)
	}
	second, err := AppendMessage(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(first, second)
}
