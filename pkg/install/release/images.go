package release

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lite.io/lite/pkg/file"
)

// CheckImages makes sure that all image archives of an artifact match its SHA256SUMS.
func (a *Artifact) CheckImages(sums Sums) error {
	return a.Each(func(p Part) error {
		if p.Kind != Images {
			return nil
		}
		hash, err := sumOf(p)
		if err != nil {
			return err
		}
		return sums.Check(p.Name, hash)
	})
}

// InstallImages copies the image archives of an artifact into a directory. Each copy has to match SHA256SUMS before it
// gets its name. A file with the same name and content stays. before gets the name of each that is written, and its
// path.
func (a *Artifact) InstallImages(sums Sums, dir string, before func(name, to string) error) error {
	return a.Each(func(p Part) error {
		if p.Kind != Images {
			return nil
		}
		name := strings.TrimPrefix(p.Name, ImageDir)
		to := filepath.Join(dir, name)
		if has, err := hasSum(to, sums[p.Name]); err != nil || has {
			return err
		}
		if err := before(name, to); err != nil {
			return err
		}
		if err := writeImages(p, to, sums); err != nil {
			return fmt.Errorf("unpack the images %s: %w", name, err)
		}
		return nil
	})
}

// SumOf is the SHA-256 of a file in hexadecimal.
func SumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum, err := sumOf(f)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return sum, nil
}

func sumOf(r io.Reader) (string, error) {
	sum := sha256.New()
	_, err := io.Copy(sum, r)
	return hex.EncodeToString(sum.Sum(nil)), err
}

// hasSum reports whether a file exists and has a SHA-256.
func hasSum(path, hash string) (bool, error) {
	is, err := SumOf(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && is == hash, err
}

// writeImages writes an archive completely, as its checksum requires, or not at all.
func writeImages(p Part, to string, sums Sums) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	f, err := file.NewPart(to, 0o600)
	if err != nil {
		return err
	}
	defer f.Discard()
	hash, err := sumOf(io.TeeReader(p, f))
	if err != nil {
		return err
	}
	if err := sums.Check(p.Name, hash); err != nil {
		return err
	}
	return f.Finish()
}
