// SPDX-License-Identifier: Apache-2.0

package seed_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/daemon/seed"
)

var seeds = map[string]seed.Texts{
	"all":    {UserData: "#cloud-config\nhostname: é\n", MetaData: "instance-id: a\n", NetworkConfig: "version: 2\n"},
	"no net": {UserData: "#!/bin/sh\n", MetaData: seed.DefaultMetaData("00000000-0000-4000-8000-000000000000", "web")},
	"empty":  {},
	"sectors": {UserData: strings.Repeat("x", 2048), MetaData: strings.Repeat("y", 2047),
		NetworkConfig: strings.Repeat("z", 60<<10)},
}

func write(t *testing.T, texts seed.Texts) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := seed.Write(&b, texts); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestReadBack: who knows ISO 9660 and its two kinds of names finds the exact texts, and
// who looks for a label finds that.
func TestReadBack(t *testing.T) {
	for name, texts := range seeds {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "seed")
			if err := os.WriteFile(path, write(t, texts), 0o600); err != nil {
				t.Fatal(err)
			}
			tags := run(t, "/usr/sbin/blkid", "-p", "-o", "export", path)
			for _, want := range []string{"LABEL=cidata\n", "TYPE=iso9660\n"} {
				if !strings.Contains(tags, want) {
					t.Errorf("blkid says nothing of %q:\n%s", want, tags)
				}
			}
			if info := run(t, "isoinfo", "-d", "-i", path); !strings.Contains(info, "Joliet with UCS level 3 found") || !strings.Contains(info, "Rock Ridge signatures version 1 found") {
				t.Errorf("isoinfo says:\n%s", info)
			}
			want := map[string]string{"/meta-data": texts.MetaData, "/user-data": texts.UserData}
			if texts.NetworkConfig != "" {
				want["/network-config"] = texts.NetworkConfig
			}
			for kind, version := range map[string]string{"-R": "", "-J": ";1"} {
				found := strings.Fields(run(t, "isoinfo", "-f", kind, "-i", path))
				for file, text := range want {
					if !slices.Contains(found, file+version) {
						t.Errorf("%s: %s is not among %v", kind, file, found)
					}
					if got := run(t, "isoinfo", kind, "-x", file+version, "-i", path); got != text {
						t.Errorf("%s: %s has %d bytes, not the %d that were written", kind, file, len(got), len(text))
					}
				}
				if len(found) != len(want) {
					t.Errorf("%s: %v", kind, found)
				}
			}
		})
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		t.Fatalf("%s %v: %v (of packages util-linux and genisoimage)\n%s", name, args, err, errs.String())
	}
	return out.String()
}

// A name that YAML would take for something else is a text all the same.
func TestDefaultMetaData(t *testing.T) {
	for _, name := range []string{"web", "123", "no", "null", "0x1f", "1e3"} {
		want := "instance-id: \"an id\"\nlocal-hostname: \"" + name + "\"\n"
		if got := seed.DefaultMetaData("an id", name); got != want {
			t.Errorf("%q", got)
		}
	}
}

// TestSame: the same texts are the same bytes, and others are others.
func TestSame(t *testing.T) {
	texts := seeds["all"]
	first := write(t, texts)
	if !bytes.Equal(first, write(t, texts)) {
		t.Error("the same texts make other bytes")
	}
	texts.NetworkConfig = ""
	if bytes.Equal(first, write(t, texts)) {
		t.Error("without network-config there are the same bytes")
	}
	if len(first)%2048 != 0 {
		t.Errorf("%d bytes are no whole sectors", len(first))
	}
}

// TestOpen: the disk can be read, and by nobody be written.
func TestOpen(t *testing.T) {
	f, err := seed.Open(seeds["all"])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, write(t, seeds["all"])) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it is open for writing")
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		t.Errorf("mode %o, %v", st.Mode, err)
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_WRITE == 0 {
		t.Errorf("seals %x, %v", seals, err)
	}
	if err := f.Truncate(0); err == nil || errors.Is(err, os.ErrClosed) {
		t.Errorf("truncated: %v", err)
	}
}
