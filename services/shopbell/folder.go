package shopbell

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// folderVersion is the layout of the data folder that this program writes. A newer program reads older ones.
const folderVersion = 1

// folder is the data folder, held by this process alone.
type folder struct{ lock *os.File }

// openFolder makes the folder if need be, and takes it for this process. It fails when another process has it, or when
// a newer program has written it.
func openFolder(path string) (*folder, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the data folder: %w", err)
	}
	f := &folder{lock}
	if err := f.take(path); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return f, nil
}

func (f *folder) take(path string) error {
	err := syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		who, _ := os.ReadFile(f.lock.Name())
		return fmt.Errorf("the data folder %s is in use by another process (%s): stop that one, or choose another folder with --data", path, strings.TrimSpace(string(who)))
	}
	if err != nil {
		return fmt.Errorf("lock the data folder %s: %w", path, err)
	}
	_ = f.lock.Truncate(0)
	_, _ = f.lock.WriteAt([]byte("pid "+strconv.Itoa(os.Getpid())+"\n"), 0)
	return checkVersion(filepath.Join(path, "VERSION"))
}

func checkVersion(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return os.WriteFile(path, []byte(strconv.Itoa(folderVersion)+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("read the data folder's version: %w", err)
	}
	version, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s holds %q, which is no version: is this a data folder of Shopbell?", path, text)
	}
	if version > folderVersion {
		return fmt.Errorf("the data folder was written by a newer Shopbell (version %d, this one knows %d): start the newer program, or choose another folder with --data", version, folderVersion)
	}
	return nil
}

// close lets go of the folder.
func (f *folder) close() { _ = f.lock.Close() }
