package containerd

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/transfer"
	image "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/gc"

	"lite.io/lite/pkg/file/unpack"
	"lite.io/lite/pkg/layout"
)

// resolving is a carrier that asks for the image and carries nothing.
type resolving struct{}

func (resolving) Transfer(ctx context.Context, from, _ any, _ ...transfer.Opt) error {
	_, _, err := from.(transfer.ImageResolver).Resolve(ctx)
	return err
}

// given is the credentials that came with the request to pull.
type given struct {
	user, secret string
	err          error
}

func (g given) GetCredentials(context.Context, string, string) (image.Credentials, error) {
	return image.Credentials{Username: g.user, Secret: g.secret}, g.err
}

func TestPullsWithTheCredentialsOfTheFile(t *testing.T) {
	quietly(t)
	u := holding(t, "web", httptest.NewServer, basic)
	host := strings.TrimPrefix(u.URL, "http://")
	pull := func(t *testing.T, g given, yaml string) error {
		t.Helper()
		s := newServed("", filepath.Join(t.TempDir(), "hosts"), layout.Local(0))
		r := parsed(t, strings.ReplaceAll(yaml, "HOST", host))
		s.now.Store(r)
		if err := r.write(s.dir, s.through); err != nil {
			t.Fatal(err)
		}
		reg, err := image.NewOCIRegistry(t.Context(), "127.0.0.1:1/web:v1", image.WithCredentials(g), image.WithHostDir(s.dir))
		if err != nil {
			t.Fatal(err)
		}
		return puller{resolving{}, s.credentials, nil}.Transfer(t.Context(), reg, nil)
	}
	const mirror = "mirrors: {'127.0.0.1:1': {endpoint: ['http://HOST']}}\n"
	for name, test := range map[string]struct {
		given given
		yaml  string
		err   string // "" = it is pulled
	}{
		"of the host":           {given{}, mirror + `configs: {'HOST': {auth: {username: user, password: 'p"a:s\s'}}}`, ""},
		"in base64":             {given{}, mirror + `configs: {'HOST': {auth: {auth: 'dXNlcjpwImE6c1xz'}}}`, ""},
		"of all hosts":          {given{}, mirror + `configs: {'*': {auth: {username: user, password: 'p"a:s\s'}}}`, ""},
		"those of the pod":      {given{user: user, secret: password}, mirror + `configs: {'HOST': {auth: {username: other, password: other}}}`, ""},
		"those of the pod only": {given{user: "other", secret: "other"}, mirror + `configs: {'HOST': {auth: {username: user, password: 'p"a:s\s'}}}`, "401"},
		"none":                  {given{}, mirror, "no basic auth credentials"},
		"unreadable ones":       {given{err: errors.New("illegal base64")}, mirror + `configs: {'HOST': {auth: {username: user, password: 'p"a:s\s'}}}`, errNoCredentials.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			err := pull(t, test.given, test.yaml)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(fmt.Sprint(err), test.err) {
				t.Errorf("got %v, want %q", err, test.err)
			}
		})
	}
}

// refusing is a carrier on a full disk, which counts how often somebody collects.
type refusing struct {
	err       error
	collected int
}

func (r *refusing) Transfer(context.Context, any, any, ...transfer.Opt) error { return r.err }

func (r *refusing) ScheduleAndWait(ctx context.Context) (gc.Stats, error) {
	r.collected++
	return nil, ctx.Err()
}

// What a pull has brought that there is no room for does not stay until something else
// is removed.
func TestPullOnAFullDiskGivesItBack(t *testing.T) {
	full := unpack.ForImages(t.TempDir()).Enough("an image", 1<<60)
	if full == nil {
		t.Fatal("there is an exbibyte")
	}
	for err, want := range map[error]int{fmt.Errorf("failed to copy: %w", full): 1, errors.New("no such image"): 0} {
		r := &refusing{err: err}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // who asked has gone
		if got := (puller{r, nil, r}).Transfer(ctx, nil, nil); !errors.Is(got, err) || r.collected != want {
			t.Errorf("%v: got %v, collected %d times", err, got, r.collected)
		}
	}
}
