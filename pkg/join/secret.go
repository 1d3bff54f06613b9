package join

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	bootstrap "k8s.io/cluster-bootstrap/token/api"

	"lite.io/lite/pkg/layout"
)

// Role is what a token lets a machine become.
type Role string

// The roles.
const (
	Agent  Role = "agent"
	Server Role = "server"
)

// ParseRole reads what a user wrote.
func ParseRole(text string) (Role, error) {
	switch r := Role(text); r {
	case Agent, Server:
		return r, nil
	}
	return "", fmt.Errorf("role %q does not exist; use agent, or server for a further server", text)
}

// Group is the group that tokens of the role authenticate in, which RBAC and the
// approver go by.
func (r Role) Group() string { return layout.TokenGroup(string(r)) }

// roleIn finds the role that membership in groups gives; "" if none.
func roleIn(groups []string) Role {
	for _, r := range []Role{Agent, Server} {
		if slices.Contains(groups, r.Group()) {
			return r
		}
	}
	return ""
}

// Settings is what a token is made for.
type Settings struct {
	Role        Role
	TTL         time.Duration // 0 is forever
	Description string
	Now         time.Time
}

// Secret is the Secret by which the API server knows the token.
func Secret(t Token, s Settings) *corev1.Secret {
	data := map[string][]byte{
		bootstrap.BootstrapTokenIDKey:               []byte(t.ID),
		bootstrap.BootstrapTokenSecretKey:           []byte(t.Secret),
		bootstrap.BootstrapTokenUsageAuthentication: []byte("true"),
		bootstrap.BootstrapTokenUsageSigningKey:     []byte("true"),
		bootstrap.BootstrapTokenExtraGroupsKey:      []byte(s.Role.Group()),
	}
	if s.Description != "" {
		data[bootstrap.BootstrapTokenDescriptionKey] = []byte(s.Description)
	}
	if s.TTL > 0 {
		data[bootstrap.BootstrapTokenExpirationKey] = []byte(stamp(s.Now.Add(s.TTL)))
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: secretName(t.ID)},
		Type:       bootstrap.SecretTypeBootstrapToken,
		Data:       data,
	}
}

func secretName(id string) string { return bootstrap.BootstrapTokenSecretPrefix + id }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Info is what may be shown of a token.
type Info struct {
	ID          string
	Role        Role // "" if the token is not for joining lite
	Description string
	Expiry      time.Time // zero is never
	Expired     bool
}

// FromSecret reads a Secret that holds a bootstrap token, lite's or another.
func FromSecret(s *corev1.Secret) (Info, error) { return infoOf(s, time.Now()) }

func infoOf(s *corev1.Secret, now time.Time) (Info, error) {
	text := func(key string) string { return string(s.Data[key]) }
	id := text(bootstrap.BootstrapTokenIDKey)
	if s.Type != bootstrap.SecretTypeBootstrapToken || !made(id, idLength) || s.Name != secretName(id) {
		return Info{}, fmt.Errorf("secret %s/%s does not contain a bootstrap token; create one with `lite token create`", s.Namespace, s.Name)
	}
	info := Info{
		ID:          id,
		Role:        roleIn(strings.Split(text(bootstrap.BootstrapTokenExtraGroupsKey), ",")),
		Description: text(bootstrap.BootstrapTokenDescriptionKey),
	}
	if until := text(bootstrap.BootstrapTokenExpirationKey); until != "" {
		var err error
		info.Expiry, err = time.Parse(time.RFC3339, until)
		// The API server takes a time that it cannot read for one in the past.
		info.Expired = err != nil || !info.Expiry.After(now)
	}
	return info, nil
}

// Create makes the cluster know the token. apierrors.IsAlreadyExists tells
// whether it has one with this ID.
func Create(ctx context.Context, client kubernetes.Interface, t Token, s Settings) error {
	if _, err := ParseRole(string(s.Role)); err != nil {
		return err
	}
	// What is kept of the end has whole seconds.
	if s.TTL < 0 || s.TTL > 0 && s.TTL < time.Second {
		return fmt.Errorf("the token would be valid for %s; the time to live must be at least a second, or 0 for no expiry", s.TTL)
	}
	_, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, Secret(t, s), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("token %s already exists; delete it first (`lite token delete %s`): %w", t.ID, t.ID, err)
	}
	if err != nil {
		return fmt.Errorf("create token %s: %w", t.ID, err)
	}
	// A pre-shared secret has the same ID each time; what became of the last
	// one of that name is history.
	return unmark(ctx, client, t.ID)
}

// List returns every bootstrap token of the cluster, in the order of their IDs.
func List(ctx context.Context, client kubernetes.Interface) ([]Info, error) {
	var infos []Info
	err := each(ctx, client, time.Now(), func(i Info, _ *corev1.Secret) { infos = append(infos, i) })
	slices.SortFunc(infos, func(a, b Info) int { return cmp.Compare(a.ID, b.ID) })
	return infos, err
}

// each shows f every bootstrap token. What only has the type of one is left
// out: the API server does not accept it either.
func each(ctx context.Context, client kubernetes.Interface, now time.Time, f func(Info, *corev1.Secret)) error {
	secrets, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{
		FieldSelector: "type=" + string(bootstrap.SecretTypeBootstrapToken),
	})
	if err != nil {
		return fmt.Errorf("list the tokens: %w", err)
	}
	for i := range secrets.Items {
		if info, err := infoOf(&secrets.Items[i], now); err == nil {
			f(info, &secrets.Items[i])
		}
	}
	return nil
}

// Valid returns whether there is a token with this ID that has not expired.
func Valid(ctx context.Context, client kubernetes.Interface, id string) (bool, error) {
	secret, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, secretName(id), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read token %s: %w", id, err)
	}
	info, err := infoOf(secret, time.Now())
	return err == nil && !info.Expired, nil
}

// Delete ends a token, named by its ID or its whole text, and notes that for
// those who still come with it.
func Delete(ctx context.Context, client kubernetes.Interface, which string, now time.Time) error {
	t, err := Named(which)
	if err != nil {
		return err
	}
	err = client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, secretName(t.ID), metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return unknown(t.ID, err)
	}
	if err != nil {
		return fmt.Errorf("delete token %s: %w", t.ID, err)
	}
	return MarkEnded(ctx, client, t.ID, Deleted, now)
}

func unknown(id string, err error) error {
	return fmt.Errorf("token %s does not exist; list tokens with `lite token list`: %w", id, err)
}

// Named reads an ID, which gives a token without a secret, or a whole token.
func Named(which string) (Token, error) {
	if which = strings.TrimSpace(which); made(which, idLength) {
		return Token{ID: which}, nil
	}
	t, err := Parse(which)
	switch {
	case errors.Is(err, noToken), errors.Is(err, tooShort):
		return Token{}, errors.New("an argument is not a token; pass an ID (6 of a-z and 0-9, see `lite token list`) or the whole token")
	case err != nil:
		return Token{}, fmt.Errorf("the token %w", err)
	}
	return t, nil
}

// Rotate replaces a token that is named by its ID or whole
// text: with the same role and description, and valid for as long as the old
// one would have been. Server and hash are those of the text.
func Rotate(ctx context.Context, client kubernetes.Interface, which string, now time.Time) (Token, error) {
	old, err := Named(which)
	if err != nil {
		return Token{}, err
	}
	s, err := settingsOf(ctx, client, old.ID, now)
	if err != nil {
		return Token{}, err
	}
	t := New()
	t.Server, t.CAHash = old.Server, old.CAHash
	if err := Create(ctx, client, t, s); err != nil {
		return Token{}, err
	}
	if err := Delete(ctx, client, old.ID, now); err != nil {
		return t, fmt.Errorf("token %s was created, but the old one may still work: %w", t.ID, err)
	}
	return t, nil
}

// settingsOf finds with what settings a token like this one is made now.
func settingsOf(ctx context.Context, client kubernetes.Interface, id string, now time.Time) (Settings, error) {
	secret, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, secretName(id), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Settings{}, unknown(id, err)
	}
	if err != nil {
		return Settings{}, fmt.Errorf("read token %s: %w", id, err)
	}
	info, err := infoOf(secret, now)
	switch {
	case err != nil:
		return Settings{}, err
	case info.Role == "":
		return Settings{}, fmt.Errorf("token %s is not for joining lite; create one with `lite token create`", id)
	case info.Expired:
		return Settings{}, fmt.Errorf("token %s has expired; create one with `lite token create`", id)
	}
	s := Settings{Role: info.Role, Description: info.Description, Now: now}
	if !info.Expiry.IsZero() {
		s.TTL = info.Expiry.Sub(now)
	}
	return s, nil
}
