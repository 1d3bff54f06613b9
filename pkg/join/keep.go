package join

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	bootstrap "k8s.io/cluster-bootstrap/token/api"

	"lite.io/lite/pkg/file"
)

// Standing is the description of the token that a server keeps, by which agents
// may join at any time.
const Standing = "the cluster's own, which its servers keep"

// Read reads a token that was said as such or by the file that holds it; the
// zero Token if neither was. Errors name the option.
func Read(text, path string) (Token, error) {
	if path != "" {
		data, err := readToken(path)
		if err != nil {
			return Token{}, fmt.Errorf("token-file: %w", err)
		}
		t, err := Parse(string(data))
		if err != nil {
			return t, fmt.Errorf("token-file %s %w", path, err)
		}
		return t, nil
	}
	if strings.TrimSpace(text) == "" {
		return Token{}, nil
	}
	t, err := Parse(text)
	if err != nil {
		return t, fmt.Errorf("token %w", err)
	}
	return t, nil
}

// longestFile is far more than a token.
const longestFile = 64 << 10

func readToken(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > longestFile {
		return nil, fmt.Errorf("%s is larger than %d bytes; use a file that contains only the token", path, longestFile)
	}
	data, err := file.ReadRegular(path)
	if errors.Is(err, file.ErrIrregular) {
		return nil, fmt.Errorf("%s %w; write the token to a regular file, which the next start can read too", path, err)
	}
	return data, err
}

// Kept is the standing token that the cluster knows, the zero Token if it knows none.
func Kept(ctx context.Context, client kubernetes.Interface) (kept Token, err error) {
	err = each(ctx, client, time.Now(), func(i Info, s *corev1.Secret) {
		if i.Description == Standing && i.Role == Agent {
			kept = Token{ID: i.ID, Secret: string(s.Data[bootstrap.BootstrapTokenSecretKey])}
		}
	})
	return kept, err
}

// Keep makes the cluster know t as its standing token, and no other as such:
// who says another one to the server means to end the old one. A token that was
// made to expire, or for servers, is recreated: it has to admit agents forever.
func Keep(ctx context.Context, client kubernetes.Interface, t Token) error {
	var old []string
	known := false
	err := each(ctx, client, time.Now(), func(i Info, s *corev1.Secret) {
		switch {
		case i.ID == t.ID && string(s.Data["token-secret"]) == t.Secret && i.Role == Agent && i.Expiry.IsZero():
			known = true
		case i.ID == t.ID || i.Description == Standing:
			old = append(old, i.ID)
		}
	})
	if err != nil {
		return err
	}
	for _, id := range old {
		if err := Delete(ctx, client, id, time.Now()); err != nil && !errors.Is(err, context.Canceled) && !apierrors.IsNotFound(err) {
			return err
		}
	}
	if known {
		return nil
	}
	return Create(ctx, client, t, Settings{Role: Agent, Description: Standing, Now: time.Now()})
}
