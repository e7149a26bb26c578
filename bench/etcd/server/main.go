// Command etcd is an etcd server of the version that go.mod pins, with the dependencies that this version asks for. It is a module of its own, so that
// none of them becomes one of Quorate's.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
