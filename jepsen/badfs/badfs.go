// Package badfs is a file system that hands everything to another folder, until it is told to let fsync fail. It is how a disk looks that can't write any more, and says so
// once (fsync(2): after EIO the pages count as clean).
package badfs

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// FS is a mounted file system.
type FS struct {
	server *fuse.Server
	bad    atomic.Bool
	failed atomic.Uint64
}

// Mount shows what is in dir at a mount point.
func Mount(dir, at string) (*FS, error) {
	f := &FS{}
	root := &node{LoopbackNode: &fs.LoopbackNode{RootData: &fs.LoopbackRoot{Path: dir}}, fs: f}
	root.RootData.RootNode = root
	var err error
	f.server, err = fs.Mount(at, root, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: dir, Name: "badfs"}})
	if err != nil {
		return nil, fmt.Errorf("mount %s at %s: %w", dir, at, err)
	}
	return f, nil
}

// FailSync lets every fsync fail with EIO from now on, or no more.
func (f *FS) FailSync(bad bool) { f.bad.Store(bad) }

// Failed returns how many have failed.
func (f *FS) Failed() uint64 { return f.failed.Load() }

// Unmount ends it; nobody may use it any more.
func (f *FS) Unmount() error {
	err := f.server.Unmount()
	if err == nil {
		f.server.Wait()
	}
	return err
}

// node is a file or folder.
type node struct {
	*fs.LoopbackNode
	fs *FS
}

var (
	_ fs.NodeFsyncer     = (*node)(nil)
	_ fs.NodeWrapChilder = (*node)(nil)
)

// WrapChild implements fs.NodeWrapChilder.
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: ops.(*fs.LoopbackNode), fs: n.fs}
}

// Fsync implements fs.NodeFsyncer: of a folder, or of a file by its handle.
func (n *node) Fsync(ctx context.Context, handle fs.FileHandle, flags uint32) syscall.Errno {
	if n.fs.bad.Load() {
		n.fs.failed.Add(1)
		return syscall.EIO
	}
	if file, ok := handle.(fs.FileFsyncer); ok {
		return file.Fsync(ctx, flags)
	}
	return 0
}
