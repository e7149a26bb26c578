package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The requests of ioctl(2) on a file system: include/uapi/linux/fs.h and fs/ext4/ext4.h.
const (
	fiFreeze       = 0xc0045877 // FIFREEZE
	fiThaw         = 0xc0045878 // FITHAW
	ext4Shutdown   = 0x8004587d // EXT4_IOC_SHUTDOWN
	goingNoLogSync = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH: what the journal holds in memory is lost as well.
)

// Disk is an ext4 file system in an image of its own: it loses power, freezes and fills up by itself.
type Disk struct {
	image string
	// Dir is where it is mounted.
	Dir string
}

// newDisk makes a file system of a size and mounts it.
func newDisk(image, dir string, size int64) (*Disk, error) {
	f, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, err
	}
	if err := run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-m", "0", image); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d := &Disk{image: image, Dir: dir}
	return d, d.mount()
}

// mount mounts it by a loop device that the kernel gives back with the mount.
func (d *Disk) mount() error { return run("mount", "-o", "loop", d.image, d.Dir) }

// busyMost is for how long a disk may still be in use by a process that has ended: the kernel closes its files aside.
const busyMost = 5 * time.Second

// Unmount takes it away; its image stays.
func (d *Disk) Unmount() error {
	for until := time.Now().Add(busyMost); ; {
		err := unix.Unmount(d.Dir, 0)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Now().After(until):
			return fmt.Errorf("unmount %s: %w", d.Dir, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// LosePower makes everything that was not synced be gone, as at the loss of power: from now on all writes fail, and what the next mount finds is what the image holds.
// Whoever uses the disk must have ended before Mount.
func (d *Disk) LosePower() error { return d.ioctl(ext4Shutdown, goingNoLogSync) }

// Mount mounts the disk again, after LosePower or damage; the journal is replayed.
func (d *Disk) Mount() error {
	if err := d.Unmount(); err != nil {
		return err
	}
	return d.mount()
}

// Freeze makes every write wait until Thaw.
func (d *Disk) Freeze() error { return d.ioctl(fiFreeze, 0) }

// Thaw ends Freeze.
func (d *Disk) Thaw() error { return d.ioctl(fiThaw, 0) }

func (d *Disk) ioctl(request uint, value int) error {
	f, err := os.Open(d.Dir)
	if err != nil {
		return err
	}
	if err = unix.IoctlSetPointerInt(int(f.Fd()), request, value); err != nil {
		err = fmt.Errorf("%s: request %#x: %w", d.Dir, request, err)
	}
	return errors.Join(err, f.Close())
}

// ballast is the file that fills a disk.
const ballast = "ballast"

// Fill takes all free space but some bytes; Drain gives it back.
func (d *Disk) Fill(leave uint64) error {
	free, err := d.Free()
	if err != nil || free <= leave {
		return err
	}
	f, err := os.OpenFile(filepath.Join(d.Dir, ballast), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = unix.Fallocate(int(f.Fd()), 0, info.Size(), int64(free-leave))
	}
	return errors.Join(err, f.Close())
}

// Drain gives back what Fill took, for good: without a sync a loss of power right after it would bring that back.
func (d *Disk) Drain() error {
	switch err := os.Remove(filepath.Join(d.Dir, ballast)); {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return d.Sync()
}

// Sync makes all that was done on the disk outlast a loss of power.
func (d *Disk) Sync() error {
	root, err := os.Open(d.Dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(root.Fd())), root.Close())
}

// Free returns the free bytes.
func (d *Disk) Free() (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(d.Dir, &s); err != nil {
		return 0, fmt.Errorf("%s: %w", d.Dir, err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}
