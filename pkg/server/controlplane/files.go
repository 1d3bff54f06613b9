package controlplane

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lite.io/lite/pkg/file"
)

// encryption is the configuration of encryption at rest. Secrets are written
// with secretbox (XSalsa20 and Poly1305); identity lets what was written
// before encryption was switched on be read.
const encryption = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox:
      keys:
      - name: key1
        secret: %s
  - identity: {}
`

// ensureEncryption makes the encryption key at the first start. The file is
// never rewritten: losing the key is losing every Secret.
func ensureEncryption(path string, used bool) error {
	_, err := os.Stat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if used {
		return fmt.Errorf("the encryption key %s is gone; restore it from a backup: no Secret in the datastore can be read without it", path)
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("create the encryption key: %w", err)
	}
	return writeFile(path, fmt.Sprintf(encryption, base64.StdEncoding.EncodeToString(key)))
}

func writeFile(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Dir(path), err)
	}
	if err := file.Write(path, []byte(content), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
