package roll

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"lite.io/lite/pkg/layout"
)

// TypeRefused is the type of the Secrets that hold whose certificates are refused.
const TypeRefused corev1.SecretType = layout.RefusedType

// Refused is the cause in an answer by which a node learns that its certificate is
// refused permanently.
const Refused metav1.CauseType = layout.RefusedCause

// refusedPrefix and a digit name these Secrets. There are sixteen, since each node
// that was ever deleted is in them and a Secret has a MiB at most.
const refusedPrefix = layout.RefusedPrefix

// Why is what has ended the certificates of a node.
type Why string

// The reasons.
const (
	Revoked Why = "revoked" // somebody said so
	Deleted Why = "deleted" // with its Node
	Unused  Why = "unused"  // no node came of it
)

// Refusal ends all certificates that a node had at one time. Those that it was given
// since are told by their keys: clocks, which may have been wrong, do not matter.
type Refusal struct {
	Since time.Time `json:"since"`
	Why   Why       `json:"why"`
	Keys  []string  `json:"keys,omitempty"` // the oldest first
}

// mostKeys bounds what renewing adds. A node needs two: the old and the new.
const mostKeys = 16

// Admits reports whether a certificate with the key is good. Where there is no refusal,
// all are.
func (r *Refusal) Admits(key string) bool { return r == nil || slices.Contains(r.Keys, key) }

// Text says for a person what has happened, after the name of the node.
func (r *Refusal) Text() string {
	when := ""
	if !r.Since.IsZero() {
		when = " at " + r.Since.UTC().Format(time.RFC3339)
	}
	switch r.Why {
	case Deleted:
		return "was deleted" + when
	case Unused:
		return "did not become ready in time" + when
	}
	return "was revoked" + when
}

func refusedName(node string) string {
	sum := sha256.Sum256([]byte(node))
	return fmt.Sprintf("%s%x", refusedPrefix, sum[0]>>4)
}

// Refusals reads such a Secret; nil if it is another one. Of an entry that cannot be
// read nothing is admitted.
func Refusals(s *corev1.Secret) map[string]*Refusal {
	if s.Type != TypeRefused || s.Namespace != metav1.NamespaceSystem {
		return nil
	}
	all := map[string]*Refusal{}
	for node, data := range s.Data {
		r := &Refusal{}
		if json.Unmarshal(data, r) != nil {
			r = &Refusal{Why: Revoked}
		}
		all[node] = r
	}
	return all
}

// RefusalOf reads what is refused of a node; nil if nothing is.
func RefusalOf(ctx context.Context, client kubernetes.Interface, node string) (*Refusal, error) {
	secret, err := readRefused(ctx, client, node)
	if secret == nil || err != nil {
		return nil, err
	}
	return Refusals(secret)[node], nil
}

func readRefused(ctx context.Context, client kubernetes.Interface, node string) (*corev1.Secret, error) {
	secret, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, refusedName(node), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read whether certificates of node %s are refused: %w", node, err)
	}
	return secret, nil
}

// Refuse ends all certificates that a node has, but those with the keys that are
// spared. What was refused before stays refused, spared or not.
func Refuse(ctx context.Context, client kubernetes.Interface, node string, why Why, now time.Time, spared ...string) error {
	err := again(func() error {
		secret, err := readRefused(ctx, client, node)
		if err != nil {
			return err
		}
		var old *Refusal
		data := map[string][]byte{}
		if secret != nil {
			old = Refusals(secret)[node]
			maps.Copy(data, secret.Data)
		}
		if why != Revoked && old != nil && old.Why == Revoked && len(old.Keys) == 0 {
			return nil // what was said by hand is not to read as something else
		}
		keys := slices.DeleteFunc(slices.Clone(spared), func(key string) bool { return !old.Admits(key) })
		if data[node], err = json.Marshal(Refusal{Since: now, Why: why, Keys: keys}); err != nil {
			return err
		}
		_, err = put(ctx, client, secret, refusedName(node), TypeRefused, data)
		return err
	})
	if err != nil {
		return fmt.Errorf("refuse the certificates of node %s: %w", node, err)
	}
	return nil
}

// Admit lets a node in by one more key, where its certificates are refused; else all
// keys are good, and nothing is written. It fails with apierrors.IsConflict if they
// were refused again since seen was read: that must not be undone.
func Admit(ctx context.Context, client kubernetes.Interface, node, key string, seen *Refusal) error {
	secret, err := readRefused(ctx, client, node)
	if secret == nil || err != nil {
		return err
	}
	old := Refusals(secret)[node]
	switch {
	case old == nil:
		return nil
	case seen == nil || !seen.Since.Equal(old.Since) || seen.Why != old.Why:
		return apierrors.NewConflict(corev1.Resource("secrets"), secret.Name, fmt.Errorf("meanwhile, somebody has refused the certificates of node %s", node))
	case old.Admits(key):
		return nil
	}
	next := *old
	next.Keys = append(slices.Clone(old.Keys), key)
	next.Keys = next.Keys[max(0, len(next.Keys)-mostKeys):]
	data := maps.Clone(secret.Data)
	if data[node], err = json.Marshal(next); err != nil {
		return err
	}
	if _, err = put(ctx, client, secret, secret.Name, TypeRefused, data); err != nil {
		return fmt.Errorf("readmit node %s: %w", node, err)
	}
	return nil
}

// again repeats what failed because somebody else was faster.
func again(f func() error) error { return retry.RetryOnConflict(retry.DefaultBackoff, f) }
