// Package roll keeps on record which machine was admitted by which token, and of
// which nodes certificates are refused.
//
// Both are Secrets in kube-system, though nothing in them is secret: who writes
// Secrets there can make tokens anyway, and who writes ConfigMaps there shall not
// be able to lock nodes out, or let them in again.
package roll

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"lite.io/lite/pkg/layout"
)

// TypeJoined is the type of the Secrets that hold what tokens have admitted.
const TypeJoined corev1.SecretType = layout.JoinedType

const (
	joinedPrefix = layout.JoinedPrefix // and the ID of the token
	endedKey     = "_ended"            // no node has that name
)

// Key names a public key, by the hash of how a certificate and a request for one
// have it.
func Key(publicKeyInfo []byte) string {
	sum := sha256.Sum256(publicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Entry is one admission.
type Entry struct {
	At    time.Time `json:"at"`
	Key   string    `json:"key"`
	From  string    `json:"from,omitempty"`  // the address, as the API server knew it
	Lived bool      `json:"lived,omitempty"` // its Node has been ready since
}

// Joined is what a token has admitted. Of a name there is the last admission, until
// its certificates are refused.
type Joined struct {
	Token string
	Nodes map[string]Entry
	// Ended is when somebody took the token away; zero if nobody did, or by other
	// means than lite's.
	Ended  time.Time
	secret *corev1.Secret // nil if there is none yet
}

// ReadJoined reads what a token has admitted, by its ID.
func ReadJoined(ctx context.Context, client kubernetes.Interface, token string) (*Joined, error) {
	secret, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, joinedPrefix+token, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return &Joined{Token: token, Nodes: map[string]Entry{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what token %s has admitted: %w", token, err)
	}
	return parseJoined(secret), nil
}

// ListJoined reads what all tokens have admitted, those that have ended too.
func ListJoined(ctx context.Context, client kubernetes.Interface) ([]*Joined, error) {
	list, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(TypeJoined)})
	if err != nil {
		return nil, fmt.Errorf("list what tokens have admitted: %w", err)
	}
	var all []*Joined
	for i := range list.Items {
		if s := &list.Items[i]; s.Type == TypeJoined && strings.HasPrefix(s.Name, joinedPrefix) {
			all = append(all, parseJoined(s))
		}
	}
	slices.SortFunc(all, func(a, b *Joined) int { return strings.Compare(a.Token, b.Token) })
	return all, nil
}

// parseJoined reads a record. What of it cannot be read counts as an admission of
// long ago: the name is known, at least.
func parseJoined(s *corev1.Secret) *Joined {
	j := &Joined{Token: strings.TrimPrefix(s.Name, joinedPrefix), Nodes: map[string]Entry{}, secret: s}
	for name, data := range s.Data {
		if name == endedKey {
			j.Ended, _ = time.Parse(time.RFC3339, string(data))
			continue
		}
		var e Entry
		if json.Unmarshal(data, &e) != nil || e.Key == "" && e.At.IsZero() { // null and {} can be read
			e = Entry{Lived: true}
		}
		j.Nodes[name] = e
	}
	return j
}

// Since lists the names that were admitted after a time, the first one first.
func (j *Joined) Since(after time.Time) []string {
	names := slices.DeleteFunc(slices.Collect(maps.Keys(j.Nodes)), func(n string) bool { return !j.Nodes[n].At.After(after) })
	slices.SortFunc(names, func(a, b string) int { return j.Nodes[a].At.Compare(j.Nodes[b].At) })
	return names
}

// Save writes the record. It fails with apierrors.IsConflict if it was changed since
// it was read: who ends a token counts on that.
func (j *Joined) Save(ctx context.Context, client kubernetes.Interface) error {
	data := map[string][]byte{}
	for name, e := range j.Nodes {
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		data[name] = text
	}
	if !j.Ended.IsZero() {
		data[endedKey] = []byte(j.Ended.UTC().Format(time.RFC3339))
	}
	var err error
	j.secret, err = put(ctx, client, j.secret, joinedPrefix+j.Token, TypeJoined, data)
	if err != nil {
		return fmt.Errorf("record what token %s has admitted: %w", j.Token, err)
	}
	return nil
}

// put makes a Secret, or replaces the content of one as it was read.
func put(ctx context.Context, client kubernetes.Interface, old *corev1.Secret, name string, kind corev1.SecretType,
	data map[string][]byte) (*corev1.Secret, error) {
	api := client.CoreV1().Secrets(metav1.NamespaceSystem)
	if old != nil {
		next := old.DeepCopy()
		next.Data = data
		updated, err := api.Update(ctx, next, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			err = apierrors.NewConflict(corev1.Resource("secrets"), name, errors.New("meanwhile, somebody has removed it"))
		}
		return updated, err
	}
	made, err := api.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name}, Type: kind, Data: data,
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		err = apierrors.NewConflict(corev1.Resource("secrets"), name, errors.New("meanwhile, somebody else has created it"))
	}
	return made, err
}

// Close removes a record, if it has not changed since it was read.
func (j *Joined) Close(ctx context.Context, client kubernetes.Interface) error {
	if j.secret == nil {
		return nil
	}
	only := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &j.secret.UID, ResourceVersion: &j.secret.ResourceVersion}}
	err := client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, j.secret.Name, only)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("remove the record of token %s: %w", j.Token, err)
	}
	return nil
}

// End notes that a token has been taken away. Whoever is about to admit somebody by
// it finds the record changed, looks again, and finds the token gone: so delete the
// token first.
func End(ctx context.Context, client kubernetes.Interface, token string, now time.Time) (*Joined, error) {
	var j *Joined
	err := again(func() (err error) {
		if j, err = ReadJoined(ctx, client, token); err != nil {
			return err
		}
		j.Ended = now
		return j.Save(ctx, client)
	})
	return j, err
}

// Forget takes a name out of all records, and says by which tokens it was in.
func Forget(ctx context.Context, client kubernetes.Interface, name string) (tokens []string, err error) {
	all, err := ListJoined(ctx, client)
	if err != nil {
		return nil, err
	}
	for _, j := range all {
		if _, ok := j.Nodes[name]; !ok {
			continue
		}
		tokens = append(tokens, j.Token)
		err = errors.Join(err, again(func() error {
			j, err := ReadJoined(ctx, client, j.Token)
			if err != nil {
				return err
			}
			delete(j.Nodes, name)
			return j.Save(ctx, client)
		}))
	}
	return tokens, err
}

// Current finds by which token each node was admitted last.
func Current(all []*Joined) map[string]*Joined {
	last := map[string]*Joined{}
	for _, j := range all {
		for name, e := range j.Nodes {
			if other, ok := last[name]; !ok || other.Nodes[name].At.Before(e.At) {
				last[name] = j
			}
		}
	}
	return last
}
