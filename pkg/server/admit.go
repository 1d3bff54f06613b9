package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/datastore/etcd"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/layout"
	"lite.io/lite/pkg/pki"
)

// askTimeout bounds one attempt to be admitted by one server.
const askTimeout = 20 * time.Second

// askAdmission asks the other servers, one after the other, to let this one into the datastore.
func askAdmission(cfg *config.Config, m membership) func(ctx context.Context, peerURL string) (string, error) {
	servers := m.toAsk(cfg)
	return func(ctx context.Context, peerURL string) (string, error) {
		if len(servers) == 0 {
			return "", errors.New("the datastore of this server is gone, and which other servers the cluster has is not known; pass --server https://<address of another server>:" + layout.APIPortText)
		}
		var errs []error
		for _, server := range servers {
			admission := etcd.Admission{Name: cfg.NodeName, PeerURL: peerURL, Server: "https://" + ownEndpoint(cfg)}
			all, err := ask(ctx, pkiDir(cfg), server, admission)
			if err == nil {
				return all, nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", server, err))
		}
		return "", fmt.Errorf("%w; if none of these servers is there any more, pass --server https://<address of another server>:%s", errors.Join(errs...), layout.APIPortText)
	}
}

// otherServer is a client of the API of another server, as lite itself.
func otherServer(dir pki.Dir, server string) (*rest.RESTClient, error) {
	return rest.UnversionedRESTClientFor(&rest.Config{
		Host: server, UserAgent: "lite/join",
		TLSClientConfig: rest.TLSClientConfig{CAFile: dir.CA(pki.ClusterCA), CertFile: dir.Cert(pki.Lite), KeyFile: dir.Key(pki.Lite)},
		// The API is part of the cluster; what the environment says of proxies is for images.
		Proxy:         func(*http.Request) (*url.URL, error) { return nil, nil },
		ContentConfig: rest.ContentConfig{NegotiatedSerializer: scheme.Codecs.WithoutConversion()},
	})
}

// get reads what another server answers at a path of lite's own.
func get[T any](ctx context.Context, client *rest.RESTClient, path string) (answer T, err error) {
	data, err := kube.Answer(client.Get().AbsPath(path).MaxRetries(0).Do(ctx))
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return answer, fmt.Errorf("read its answer: %w", err)
	}
	return answer, nil
}

func ask(ctx context.Context, dir pki.Dir, server string, a etcd.Admission) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client, err := otherServer(dir, server)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	data, err := kube.Answer(client.Post().AbsPath(layout.MembersPath).MaxRetries(0).SetHeader("Content-Type", "application/json").Body(body).Do(ctx))
	if err != nil {
		return "", err
	}
	var answer etcd.Admitted
	if err := json.Unmarshal(data, &answer); err != nil || answer.InitialCluster == "" {
		return "", errors.New("the server does not answer as a version of lite does that has several servers; upgrade it first")
	}
	return answer.InitialCluster, nil
}
