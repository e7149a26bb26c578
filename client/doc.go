// Package client is for programs that use a group of Quorate: proxies, gateways, historians.
//
// A [Gate] answers, from memory, whether a write to a partition may be made now, and where.
package client
