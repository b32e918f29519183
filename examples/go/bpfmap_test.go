// SPDX-License-Identifier: GPL-2.0-only

package bpfmap

import (
	"errors"
	"syscall"
	"testing"
)

func TestAValueComesBack(t *testing.T) {
	for _, one := range []struct {
		name string
		kind Type
	}{{"hash", Hash}, {"array", Array}} {
		t.Run(one.name, func(t *testing.T) {
			made, err := New(one.kind, 4, 4, 8)
			if err != nil {
				t.Fatal(err)
			}
			defer made.Close()
			if err := made.Update(3, 42); err != nil {
				t.Fatal(err)
			}
			if value, err := made.Lookup(3); value != 42 || err != nil {
				t.Errorf("Lookup(3) = %d, %v; want 42", value, err)
			}
		})
	}
}

func TestAKeyThatIsNotThere(t *testing.T) {
	made, err := New(Hash, 4, 4, 8)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	if _, err := made.Lookup(3); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Lookup(3) says %v; want ENOENT", err)
	}
}

// A kernel may lack a type of map: then its row says skip.
func TestNewerTypes(t *testing.T) {
	for _, one := range []struct {
		name           string
		kind           Type
		key, value, of uint32
	}{
		{"ringbuf", Ringbuf, 0, 0, 4096},
		{"bloom filter", BloomFilter, 0, 4, 8},
	} {
		t.Run(one.name, func(t *testing.T) {
			made, err := New(one.kind, one.key, one.value, one.of)
			if errors.Is(err, syscall.EINVAL) {
				t.Skip("this kernel has no such map")
			}
			if err != nil {
				t.Fatal(err)
			}
			made.Close()
		})
	}
}
