package server

import (
	"maps"
	"strings"

	"lite.io/lite/pkg/addon/battery"
	"lite.io/lite/pkg/agent"
	"lite.io/lite/pkg/config"
	"lite.io/lite/pkg/kube"
	"lite.io/lite/pkg/pki"
	"lite.io/lite/pkg/server/controlplane"
)

// CertificateFiles is where a server has certificates: the table's, the kubeconfigs
// that repeat them, which may be older, and what users have brought.
func CertificateFiles(cfg *config.Config) []pki.File {
	files := pkiDir(cfg).Files()
	for _, path := range append(controlplane.Config{Dir: cfg.Layout().Data.Server()}.Kubeconfigs(), cfg.Layout().Data.Agent().Kubeconfig(),
		cfg.WriteKubeconfig) {
		files = append(files, pki.File{Path: path})
	}
	if path, given := kube.Value(cfg.APIServerArgs, "oidc-ca-file"); given {
		files = append(files, pki.File{Path: path, Renewal: pki.ByUser})
	}
	for _, pair := range kube.All(cfg.APIServerArgs, "tls-sni-cert-key") {
		path, _, _ := strings.Cut(pair, ",") // cert,key:names
		files = append(files, pki.File{Path: path, Renewal: pki.ByUser})
	}
	return append(files, agent.UserFiles(cfg)...)
}

// uses says which certificates the parts of a server cannot work without: what they
// show, and the authorities by which they know others and are known.
func uses(dir pki.Dir) map[string][]string {
	cluster, store := dir.CA(pki.ClusterCA), dir.CA(pki.EtcdCA)
	uses := agent.Uses(cluster, dir.Cert(pki.KubeletClient))
	uses["kubelet"] = append([]string{dir.Cert(pki.Kubelet)}, uses["kubelet"]...)
	maps.Copy(uses, map[string][]string{
		"etcd": {store, dir.Cert(pki.EtcdServer), dir.Cert(pki.EtcdPeer)},
		"apiserver": {cluster, dir.Cert(pki.APIServer), store, dir.Cert(pki.APIServerEtcdClient), dir.Cert(pki.APIServerKubeletClient),
			dir.CA(pki.FrontProxyCA), dir.Cert(pki.FrontProxyClient)},
		"scheduler":          {cluster, dir.Cert(pki.Scheduler)},
		"controller-manager": {cluster, dir.Cert(pki.ControllerManager)},
	})
	maps.Copy(uses, battery.Uses(dir))
	for user, parts := range map[string][]string{
		pki.Lite:  {"election", "manifests", "join", "approver", "node-addresses", "server-names"},
		pki.Admin: {"manifests-directory", "runtime-classes"},
	} {
		for _, part := range parts {
			uses[part] = []string{cluster, dir.Cert(user)}
		}
	}
	return uses
}
