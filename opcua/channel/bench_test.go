package channel

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

// BenchmarkRead measures request and response through the whole transport, with
// one request under way at a time and with many.
func BenchmarkRead(b *testing.B) {
	value := &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(3.5)}
	h := &echo{serve: func(ch *Channel, requestID uint32, req ua.Request) {
		_ = ch.Send(requestID, &ua.ReadResponse{
			ResponseHeader: &ua.ResponseHeader{Timestamp: time.Now(), RequestHandle: req.Header().RequestHandle},
			Results:        []*ua.DataValue{value},
		})
	}}
	for _, window := range []int{1, 32} {
		b.Run(fmt.Sprint("window", window), func(b *testing.B) {
			_, addr := start(b, Config{}, h)
			r := connect(b, addr)
			_ = r.SetDeadline(time.Time{})
			body := readRequest(b, 1, "ns=1;i=70000")
			chunks := make([]byte, 0, window*200)
			b.ReportAllocs()
			for done := 0; done < b.N; done += window {
				chunks = chunks[:0]
				for range window {
					chunks = append(chunks, r.chunk("MSGF", 1, body)...)
				}
				r.send(chunks)
				for range window {
					if err := skip(r.Conn); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// skip reads one message without looking at it.
func skip(nc net.Conn) error {
	var buf [1024]byte
	if _, err := io.ReadFull(nc, buf[:prefixLength]); err != nil {
		return err
	}
	_, err := io.ReadFull(nc, buf[prefixLength:binary.LittleEndian.Uint32(buf[4:])])
	return err
}

// BenchmarkSeal measures signing and encrypting a small chunk.
func BenchmarkSeal(b *testing.B) {
	p := policyByURI(ua.SecurityPolicyURIBasic256Sha256)
	t := new(token)
	if err := t.setKeys(p, ua.MessageSecurityModeSignAndEncrypt, make([]byte, 32), make([]byte, 32)); err != nil {
		b.Fatal(err)
	}
	buf := append(make([]byte, 0, 1024), frame("MSGF", u32s(1, 2, 3, 4), make([]byte, 100))...)
	b.ReportAllocs()
	for b.Loop() {
		t.send.seal(buf[:symmetricHeader+100], 0)
	}
}
