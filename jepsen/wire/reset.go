package wire

import (
	"encoding/binary"
)

// What is needed of RFC 791 §3.1 and RFC 9293 §3.1.
const (
	protocolTCP = 6
	flagRST     = 1 << 2
	flagACK     = 1 << 4
	ipBytes     = 20
	tcpBytes    = 20
)

// resets makes two segments that break a connection at both ends, out of one that is on its way: one to its sender in the name of its receiver, and one to its receiver in the
// name of its sender. False where it is no TCP segment of an open connection.
func resets(packet []byte) (toSender, toReceiver []byte, ok bool) {
	header := int(packet[0]&0x0f) * 4
	if packet[9] != protocolTCP || len(packet) < header+tcpBytes {
		return nil, nil, false
	}
	tcp := packet[header:]
	if tcp[13]&flagACK == 0 || tcp[13]&flagRST != 0 {
		return nil, nil, false
	}
	from, to := packet[12:16], packet[16:20]
	fromPort, toPort := tcp[0:2], tcp[2:4]
	// A reset is believed only if it comes with the very number that is expected next: what the sender has acknowledged, and what it is sending.
	return segment(to, from, toPort, fromPort, tcp[8:12]), segment(from, to, fromPort, toPort, tcp[4:8]), true
}

// segment is an IPv4 packet with a TCP reset.
func segment(from, to, fromPort, toPort, sequence []byte) []byte {
	p := make([]byte, ipBytes+tcpBytes)
	p[0] = 0x45
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[8], p[9] = 64, protocolTCP
	copy(p[12:], from)
	copy(p[16:], to)
	binary.BigEndian.PutUint16(p[10:], checksum(0, p[:ipBytes]))
	tcp := p[ipBytes:]
	copy(tcp[0:], fromPort)
	copy(tcp[2:], toPort)
	copy(tcp[4:], sequence)
	tcp[12] = tcpBytes / 4 << 4
	tcp[13] = flagRST
	// The pseudo header of RFC 9293 §3.1: both addresses, the protocol, and the length.
	sum := uint32(protocolTCP) + tcpBytes
	for i := 12; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	binary.BigEndian.PutUint16(tcp[16:], checksum(sum, tcp))
	return p
}

// checksum is that of RFC 1071, of bytes whose number is even.
func checksum(sum uint32, b []byte) uint16 {
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
