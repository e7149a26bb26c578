package badfs

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
)

// TestFailSync writes through the file system with bolt, as members do: what was synced is there, and a sync that fails says so.
func TestFailSync(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root and /dev/fuse")
		}
		t.Skip("needs root and /dev/fuse")
	}
	dir, at := t.TempDir(), t.TempDir()
	f, err := Mount(dir, at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Unmount(); err != nil {
			t.Error(err)
		}
	}()
	db, err := bbolt.Open(filepath.Join(at, "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string) error {
		return db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			return b.Put([]byte(key), []byte("v"))
		})
	}
	if err := put("first"); err != nil {
		t.Fatal(err)
	}
	f.FailSync(true)
	if err := put("second"); !errors.Is(err, syscall.EIO) {
		t.Errorf("a sync that fails gives %v", err)
	}
	if f.Failed() == 0 {
		t.Error("none has failed")
	}
	f.FailSync(false)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	there, err := os.ReadDir(dir)
	if err != nil || len(there) != 1 || there[0].Name() != "db" {
		t.Errorf("in the folder behind it: %v, %v", there, err)
	}
}
