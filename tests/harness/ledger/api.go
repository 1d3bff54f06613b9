package ledger

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// patience is how long a client waits for an answer before it asks another server.
const patience = 3 * time.Second

// API is a cluster as a client sees it that knows several of its servers: it asks the
// one that has answered last, and another when that fails.
type API struct {
	namespace string
	config    *rest.Config

	mu      sync.Mutex
	servers []server // the first is asked first
	through *server  // whom all requests but lists are made to, if there is one
}

type server struct {
	address string
	client  rest.Interface
}

// NewAPI returns a client of the servers at some addresses, which writes ConfigMaps to a
// namespace. Of the configuration it takes the credentials; it connects by dial.
func NewAPI(
	config *rest.Config, dial func(ctx context.Context, network, address string) (net.Conn, error), namespace string, addresses ...string,
) (*API, error) {
	a := &API{namespace: namespace, config: rest.CopyConfig(config)}
	a.config.Dial, a.config.QPS = dial, -1
	// A connection of version 2 lives on when a request on it gets no answer, and takes
	// the next one to the server that is gone.
	a.config.NextProtos = []string{"http/1.1"}
	return a, a.Use(addresses...)
}

// Use tells the client which servers there are now.
func (a *API) Use(addresses ...string) error {
	var servers []server
	for _, address := range addresses {
		s, err := a.server(address)
		if err != nil {
			return err
		}
		servers = append(servers, s)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.servers = servers
	return nil
}

// Through has all requests made at one address, which the servers have in turn, as by a client
// that knows no other. Lists are of each server as before.
func (a *API) Through(address string) error {
	s, err := a.server(address)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.through = &s
	return nil
}

func (a *API) server(address string) (server, error) {
	c := rest.CopyConfig(a.config)
	c.Host = "https://" + address
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return server{}, fmt.Errorf("make a client of %s: %w", address, err)
	}
	return server{address, client.CoreV1().RESTClient()}, nil
}

// asked returns whom to make a request to, one after the other.
func (a *API) asked() []server {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.through != nil {
		return []server{*a.through}
	}
	return slices.Clone(a.servers)
}

// known returns the servers, the one to ask first at the front.
func (a *API) known() []server {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.servers)
}

// avoid asks another server first from now on.
func (a *API) avoid(s server) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.servers[0].address == s.address {
		a.servers = append(a.servers[1:len(a.servers):len(a.servers)], a.servers[0])
	}
}

// Do makes a request. What a server has refused is asked of the others.
func (a *API) Do(ctx context.Context, key string, r Request) (Answer, error) {
	var refused error
	for _, s := range a.asked() {
		answer, err := s.do(ctx, a.namespace, key, r)
		if err == nil {
			return answer, nil
		}
		a.avoid(s)
		if err = fmt.Errorf("%s: %w", s.address, anonymous(err)); answer.Outcome != Refused {
			return answer, err
		}
		refused = err
	}
	return Answer{Outcome: Refused}, refused
}

// do makes a request of one server, once. client-go would repeat it, and not tell.
func (s server) do(ctx context.Context, namespace, key string, r Request) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: key},
		Data:       map[string]string{"value": r.Value, "filler": strings.Repeat("x", 1<<10)},
	}
	var request *rest.Request
	switch r.Kind {
	case Create:
		request = s.client.Post().Body(object)
	case Update:
		object.ResourceVersion = strconv.FormatInt(r.Revision, 10)
		request = s.client.Put().Name(key).Body(object)
	case Delete:
		version := strconv.FormatInt(r.Revision, 10)
		request = s.client.Delete().Name(key).Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &version}})
	case Read:
		request = s.client.Get().Name(key)
	}
	result := request.Namespace(namespace).Resource("configmaps").MaxRetries(0).Do(ctx)
	if err := result.Error(); err != nil {
		return outcome(key, r, err, connected.Load())
	}
	if r.Kind == Delete {
		return Answer{Outcome: Done}, nil
	}
	answered := &corev1.ConfigMap{}
	if err := result.Into(answered); err != nil {
		return Answer{Outcome: Unknown}, err
	}
	return answerOf(answered)
}

// answerOf is what an object tells.
func answerOf(object *corev1.ConfigMap) (Answer, error) {
	revision, err := strconv.ParseInt(object.ResourceVersion, 10, 64)
	if err != nil {
		return Answer{Outcome: Unknown}, fmt.Errorf("revision of %s: %w", object.Name, err)
	}
	return Answer{Outcome: Done, Value: object.Data["value"], Revision: revision}, nil
}

// outcome tells what an error says of the object, or returns it. It says nothing unless
// the API server has looked at the object: only then it names it.
func outcome(key string, r Request, err error, connected bool) (Answer, error) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		if !connected {
			return Answer{Outcome: Refused}, err
		}
		return Answer{Outcome: Unknown}, err
	}
	details := status.Status().Details
	// client-go makes a status up, with the name, of an answer that is none.
	named := details != nil && details.Name == key && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
	switch {
	case named && r.Kind == Create && apierrors.IsAlreadyExists(err):
		return Answer{Outcome: Exists}, nil
	case named && r.Kind != Create && apierrors.IsNotFound(err):
		return Answer{Outcome: Missing}, nil
	case named && r.Kind != Create && apierrors.IsConflict(err):
		return Answer{Outcome: Conflict}, nil
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err), apierrors.IsTooManyRequests(err), apierrors.IsNotFound(err):
		return Answer{Outcome: Refused}, err
	}
	return Answer{Outcome: Unknown}, err
}

// List asks each server.
func (a *API) List(ctx context.Context) ([]Snapshot, error) {
	var all []Snapshot
	for _, s := range a.known() {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		list := &corev1.ConfigMapList{}
		err := s.client.Get().Namespace(a.namespace).Resource("configmaps").Do(ctx).Into(list)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.address, err)
		}
		shown := Snapshot{From: s.address, Objects: map[string]Answer{}}
		for _, object := range list.Items {
			if object.Name == "kube-root-ca.crt" { // every namespace has it
				continue
			}
			if shown.Objects[object.Name], err = answerOf(&object); err != nil {
				return nil, err
			}
		}
		all = append(all, shown)
	}
	return all, nil
}

// anonymous leaves out of an error what makes each another: names of objects, ports and connections.
func anonymous(err error) error {
	text := err.Error()
	for _, varying := range []string{`ledger-\d+`, `10\.\d+\.\d+\.\d+:\d+->`, `(Get|Put|Post|Delete) "[^"]*": `} {
		text = regexp.MustCompile(varying).ReplaceAllString(text, "")
	}
	return errors.New(text)
}
