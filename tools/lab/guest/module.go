// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/tools/lab/wire"
)

const (
	moduleName  = "vmm"
	moduleGroup = "vmm"
)

// unloadTime bounds how long references may take to go after the last process
// is gone: work queues and RCU callbacks of a slow emulated machine.
const unloadTime = 10 * time.Second

// moduleList is a list of opened modules, in the order in which to load them.
type moduleList []*os.File

// openAll opens the modules in dir, in the order of their names. Of KVM's two
// the one is left out that is for another maker's processor.
func openAll(dir string) (moduleList, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // the kernel has it all built in
	}
	if err != nil {
		return nil, err
	}
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	var list moduleList
	for _, e := range entries {
		flag, needed := cpuFlags[moduleOf(e.Name())]
		if needed && !strings.Contains(string(cpu), flag) {
			continue
		}
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		list = append(list, f)
	}
	return list, nil
}

// insert loads and closes them.
func (l moduleList) insert() error {
	for _, f := range l {
		if err := insertFile(f); err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// cpuFlags are the processor features without which a module does not load.
var cpuFlags = map[string]string{"kvm_amd": " svm ", "kvm_intel": " vmx "}

// moduleOf takes the number off a file name such as 04-kvm_amd.ko.
func moduleOf(file string) string {
	_, name, _ := strings.Cut(strings.TrimSuffix(file, ".ko"), "-")
	return name
}

func insertFile(f *os.File) error {
	err := unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", filepath.Base(f.Name()), err)
	}
	return nil
}

// openModule opens the module under test while the initramfs can be seen. It
// is nil if none was packed.
func openModule() (*os.File, error) {
	f, err := os.Open(wire.ModuleFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

// insertModule loads the module under test and gives its device to the group
// that the packaging gives it to; there is no udev here to do it.
func insertModule(file *os.File) error {
	if file == nil {
		return errors.New("no module was packed")
	}
	if err := insertFile(file); err != nil {
		return err
	}
	if err := copyTo(wire.ModuleCopy, file); err != nil {
		return err
	}
	dev := "/dev/" + moduleName
	if _, err := os.Stat(dev); err != nil {
		return nil // a module need not have made a device
	}
	gid, err := groupID(moduleGroup)
	if err != nil {
		return err
	}
	if err := os.Chown(dev, 0, gid); err != nil {
		return err
	}
	return os.Chmod(dev, 0o660)
}

// copyTo writes all of a file to another place.
func copyTo(path string, file *os.File) error {
	b, err := io.ReadAll(io.NewSectionReader(file, 0, math.MaxInt64))
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

func groupID(name string) (int, error) {
	b, err := os.ReadFile("/etc/group")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) >= 3 && f[0] == name {
			return strconv.Atoi(f[2])
		}
	}
	return 0, fmt.Errorf("no group %q in the tree", name)
}

// removeModule unloads the module, and says who holds it if that fails. Every
// process is gone by now, so a reference that stays has leaked.
func removeModule() string {
	if _, err := os.Stat("/sys/module/" + moduleName); errors.Is(err, os.ErrNotExist) {
		return "" // the command has unloaded it itself
	}
	var err error
	for end := time.Now().Add(unloadTime); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		err = unix.DeleteModule(moduleName, unix.O_NONBLOCK)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return ""
		}
	}
	count, _ := os.ReadFile("/sys/module/" + moduleName + "/refcnt")
	return fmt.Sprintf("module %s cannot be unloaded %v after the last process ended: %v, reference count %s",
		moduleName, unloadTime, err, strings.TrimSpace(string(count)))
}
