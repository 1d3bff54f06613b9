package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"
	bootstrap "k8s.io/cluster-bootstrap/token/api"

	"lite.io/lite/pkg/cluster"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/join"
	"lite.io/lite/pkg/join/approver"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/server/controlplane"
	"lite.io/lite/pkg/version"
)

// members is what a server does for those that join it, and for whoever asks which there are.
type members struct {
	nodeName string // of this server
	dir      layout.Server
	pki      pki.Dir
	cfg      *config.Config
	facts    cluster.Facts
	client   *kube.Client
	store    *etcd.Etcd // nil if the datastore is not lite's own
	// held returns once a server holds the lease of the one that leads.
	held func(context.Context) error

	admitting   sync.Mutex
	remembering sync.Mutex

	reach   sync.Mutex
	reached map[string]*rest.RESTClient // other servers, by URL
}

func (m *members) routes() map[string]controlplane.Route {
	routes := map[string]controlplane.Route{"POST " + layout.HandoverPath: m.handOver}
	if m.store != nil {
		routes["GET "+layout.MembersPath] = m.list
		routes["POST "+layout.MembersPath] = m.admit
		routes["POST "+layout.AbsencePath] = m.absence
		routes["GET "+layout.HealthPath] = func(_ http.ResponseWriter, r *http.Request) (any, error) { return orBusy(m.health(r.Context())) }
		routes["GET "+layout.PositionPath] = func(http.ResponseWriter, *http.Request) (any, error) { return orBusy(m.store.Position()) }
		routes["DELETE "+layout.MembersPath+"/{name}"] = m.remove
	}
	return routes
}

// read reads a request. What is wrong with it is for the one who made it.
func read(r *http.Request, into any) error {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return apierrors.NewBadRequest("the request is not the JSON object that this version of lite expects: " + err.Error())
	}
	return nil
}

// busy is for what time mends.
func busy(err error) error {
	s := apierrors.NewServiceUnavailable(err.Error())
	s.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	return s
}

// handOver seals what servers share by the token that was shown. Who may ask, a ClusterRole decides; but without a token
// for servers there is nothing to seal by.
func (m *members) handOver(_ http.ResponseWriter, r *http.Request) (any, error) {
	who, _ := request.UserFrom(r.Context())
	id, byToken := strings.CutPrefix(who.GetName(), layout.TokenUser)
	if !byToken || !slices.Contains(who.GetGroups(), join.Server.Group()) {
		return nil, apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("only a token that was created with --role server is handed over what servers share"))
	}
	if m.facts.Datastore == cluster.SQLite {
		return nil, apierrors.NewConflict(schema.GroupResource{}, "", errors.New("the cluster's datastore is a file of its only server; with SQLite there can be no other"))
	}
	var asked join.HandoverRequest
	if err := read(r, &asked); err != nil {
		return nil, err
	}
	if problems := validation.IsDNS1123Subdomain(asked.NodeName); len(problems) > 0 {
		return nil, apierrors.NewBadRequest("nodeName: " + strings.Join(problems, ", "))
	}
	client, err := m.client.Clientset()
	if err != nil {
		return nil, err
	}
	if why, err := approver.Held(r.Context(), client, asked.NodeName); err != nil || why != "" {
		if why != "" {
			err = apierrors.NewConflict(schema.GroupResource{Resource: "nodes"}, asked.NodeName, errors.New(why))
		}
		return nil, err
	}
	secrets := client.CoreV1().Secrets(metav1.NamespaceSystem)
	secret, err := secrets.Get(r.Context(), bootstrap.BootstrapTokenSecretPrefix+id, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if m.store == nil {
		// Nobody has to admit it to a store that is not lite's: from here on there may be another server.
		if err := m.remember(""); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	shared, err := m.collect()
	if err != nil {
		slog.Error("Cannot hand over to a server what servers share", "err", err)
		return nil, apierrors.NewInternalError(err)
	}
	sealed, err := shared.Seal(join.Token{ID: id, Secret: string(secret.Data[bootstrap.BootstrapTokenSecretKey])})
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	slog.Info("Handed over to a machine what servers share", "node", asked.NodeName, "token", id, "from", r.RemoteAddr)
	return join.HandoverResponse{Sealed: sealed}, nil
}

// collect reads what servers share.
func (m *members) collect() (join.Handover, error) {
	h := join.Handover{Kubernetes: version.Get().Kubernetes, Files: map[string][]byte{}}
	for _, name := range sharedFiles(m.dir) {
		path := filepath.Join(string(m.dir), name)
		if path == m.dir.Encryption() && m.facts.Encryption == cluster.UserEncryption {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return h, fmt.Errorf("a file that servers share is gone: %w", err)
		}
		h.Files[name] = data
	}
	return h, nil
}

// admit lets a server into the datastore.
func (m *members) admit(_ http.ResponseWriter, r *http.Request) (any, error) {
	if err := onlyLite(r); err != nil {
		return nil, err
	}
	var asked etcd.Admission
	if err := read(r, &asked); err != nil {
		return nil, err
	}
	m.admitting.Lock()
	defer m.admitting.Unlock()
	// From now on this server is one of several, also if it dies on the way: it does not lead because it is
	// alone, and its configuration no longer makes the cluster's facts.
	if err := m.remember(asked.Server); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if err := m.store.Share(r.Context()); err != nil {
		return nil, busy(err)
	}
	if err := m.held(r.Context()); err != nil {
		return nil, busy(fmt.Errorf("no server holds the lease of the one that leads yet: %w", err))
	}
	all, err := m.store.Admit(r.Context(), asked.Name, asked.PeerURL)
	if _, ok := errors.AsType[*etcd.BusyError](err); ok {
		return nil, busy(err)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return etcd.Admitted{InitialCluster: all}, nil
}

// forget makes a server that is alone after all, because the others were removed or never came, one that makes the facts of its
// cluster and needs no Lease, from its next start on. Members that were removed in order cannot be a quorum without one
// that knows; after a reset they can, so they have to be told.
func (m *members) forget() error {
	m.admitting.Lock()
	defer m.admitting.Unlock()
	if m.store == nil {
		return nil
	}
	known, err := readMembership(m.dir)
	if err != nil || known == nil || known.Alone {
		return err
	}
	all, err := m.store.Members()
	if err != nil || len(all) != 1 || !all[0].Self {
		return err
	}
	return m.isAlone(known)
}

// isAlone keeps what is left to remember of the others.
func (m *members) isAlone(known *membership) error {
	if len(known.Servers) == 0 && m.cfg.Differs(m.facts) != nil {
		return nil // as was said when the others went
	}
	if err := m.cfg.Differs(m.facts); err != nil {
		warnOfFacts(err)
		return membership{Complete: true, Reset: known.Reset}.write(m.dir)
	}
	if known.Reset {
		return membership{Complete: true, Alone: true, Reset: true}.write(m.dir)
	}
	if err := os.Remove(m.dir.Membership()); err != nil {
		return fmt.Errorf("forget that the cluster had other servers: %w", err)
	}
	return nil
}

// remember keeps that there is another server, and where.
func (m *members) remember(server string) error {
	m.remembering.Lock()
	defer m.remembering.Unlock()
	known, err := readMembership(m.dir)
	if err != nil || known != nil && !known.Alone && (server == "" || slices.Contains(known.Servers, server)) {
		return err
	}
	switch {
	case known == nil:
		known = &membership{Complete: true}
	case known.Alone:
		known = &membership{Complete: true, Reset: known.Reset}
	}
	if server != "" {
		known.Servers = slices.Insert(known.Servers, 0, server)
	}
	known.Servers = known.Servers[:min(len(known.Servers), enoughServers)]
	return known.write(m.dir)
}

// learn keeps where the other servers are, so that any of them can admit this one again, and not only the one by which it
// joined. What it was told before, such as the address of a load balancer, comes after them.
func (m *members) learn(servers []string) error {
	m.remembering.Lock()
	defer m.remembering.Unlock()
	known, err := readMembership(m.dir)
	if err != nil || known == nil || known.Alone || len(servers) == 0 {
		return err
	}
	all := slices.Clone(servers)
	for _, before := range known.Servers {
		if !slices.Contains(all, before) {
			all = append(all, before)
		}
	}
	if all = all[:min(len(all), enoughServers)]; slices.Equal(all, known.Servers) {
		return nil
	}
	known.Servers = all
	return known.write(m.dir)
}

// enoughServers bounds how many are remembered.
const enoughServers = 8

// onlyLite lets lite's own identity through. Others may have been given all of the API, as administrators are; this part
// of it is lite's servers' alone.
func onlyLite(r *http.Request) error {
	if who, _ := request.UserFrom(r.Context()); who.GetName() != layout.ServerUser {
		return apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("only servers of the cluster may change the members of the datastore; run `lite member` on a server"))
	}
	return nil
}

func (m *members) list(http.ResponseWriter, *http.Request) (any, error) {
	return orBusy(m.store.Members())
}

// orBusy is for what cannot be said only as long as the datastore is not open.
func orBusy[T any](answer T, err error) (any, error) {
	if err != nil {
		return nil, busy(err)
	}
	return answer, nil
}

func (m *members) remove(_ http.ResponseWriter, r *http.Request) (any, error) {
	if err := onlyLite(r); err != nil {
		return nil, err
	}
	gone, err := m.store.Remove(r.Context(), r.PathValue("name"))
	if _, ok := errors.AsType[*etcd.BusyError](err); ok {
		return nil, busy(err)
	}
	if _, ok := errors.AsType[*etcd.UnknownError](err); ok {
		return nil, refused(http.StatusNotFound, metav1.StatusReasonNotFound, err)
	}
	if err != nil {
		return nil, refused(http.StatusConflict, metav1.StatusReasonConflict, err)
	}
	return gone, nil
}

// refused is an error of the API in the words of err alone.
func refused(code int32, reason metav1.StatusReason, err error) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: err.Error()}}
}
