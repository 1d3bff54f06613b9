package join

import (
	"cmp"
	"context"
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
)

// Ending is what became of a token. Its Secret is gone then, so cluster-info
// keeps a mark: else nobody could tell an expired token from a mistyped one.
type Ending string

// The endings.
const (
	Expired Ending = "expired"
	Deleted Ending = "deleted"
)

const (
	markPrefix = "ended-" // and the ID; the value is the ending and when
	mostMarks  = 100
)

// MarkEnded notes in cluster-info what became of a token. The marks of the last
// hundred tokens are kept.
func MarkEnded(ctx context.Context, client kubernetes.Interface, id string, how Ending, when time.Time) error {
	err := clusterInfo.edit(ctx, client, func(data map[string]string) bool {
		key, mark := markPrefix+id, string(how)+" "+stamp(when)
		if data[key] == mark {
			return false
		}
		data[key] = mark
		dropOldest(data)
		return true
	})
	// Where there is no cluster-info nobody can have come with the token.
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("record in cluster-info that token %s is %s: %w", id, how, err)
	}
	return nil
}

// unmark forgets what became of an earlier token of the same ID.
func unmark(ctx context.Context, client kubernetes.Interface, id string) error {
	err := clusterInfo.edit(ctx, client, func(data map[string]string) bool {
		_, marked := data[markPrefix+id]
		delete(data, markPrefix+id)
		return marked
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("record in cluster-info that token %s is back: %w", id, err)
	}
	return nil
}

// dropOldest keeps as many marks as there may be. A mark that cannot be read
// counts as the oldest.
func dropOldest(data map[string]string) {
	marks := slices.DeleteFunc(slices.Collect(maps.Keys(data)), func(key string) bool {
		return !strings.HasPrefix(key, markPrefix)
	})
	slices.SortFunc(marks, func(a, b string) int {
		_, whenA := readMark(data[a])
		_, whenB := readMark(data[b])
		return cmp.Or(whenB.Compare(whenA), cmp.Compare(a, b))
	})
	for _, key := range marks[min(len(marks), mostMarks):] {
		delete(data, key)
	}
}

// readMark reads what MarkEnded wrote; "" if it is anything else.
func readMark(mark string) (Ending, time.Time) {
	how, text, _ := strings.Cut(mark, " ")
	when, err := time.Parse(time.RFC3339, text)
	if err != nil || Ending(how) != Expired && Ending(how) != Deleted {
		return "", time.Time{}
	}
	return Ending(how), when
}

// Sweep deletes the tokens of lite that have expired and marks them. It returns
// when the next one will, zero if none; tokens that are made later may be
// earlier.
func Sweep(ctx context.Context, client kubernetes.Interface, now time.Time) (next time.Time, err error) {
	type token struct {
		Info
		secret *corev1.Secret
	}
	var expired []token
	err = each(ctx, client, now, func(i Info, s *corev1.Secret) {
		switch {
		case i.Role == "":
			// Not ours to delete. The API server refuses it once it has expired.
		case i.Expired:
			expired = append(expired, token{i, s})
		case !i.Expiry.IsZero() && (next.IsZero() || i.Expiry.Before(next)):
			next = i.Expiry
		}
	})
	for _, t := range expired {
		if t.Expiry.IsZero() {
			t.Expiry = now // what it says cannot be read
		}
		err = errors.Join(err, sweepOne(ctx, client, t.Info, t.secret))
	}
	return next, err
}

// sweepOne marks first: the token is of no use already.
func sweepOne(ctx context.Context, client kubernetes.Interface, i Info, s *corev1.Secret) error {
	if err := MarkEnded(ctx, client, i.ID, Expired, i.Expiry); err != nil {
		return err
	}
	// The same ID may have been used again since the list was read.
	only := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion}}
	err := client.CoreV1().Secrets(s.Namespace).Delete(ctx, s.Name, only)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete the expired token %s: %w", i.ID, err)
	}
	return nil
}
