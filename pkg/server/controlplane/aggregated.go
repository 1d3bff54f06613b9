package controlplane

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/tools/cache"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	"k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	listers "k8s.io/kube-aggregator/pkg/client/listers/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/controllers/autoregister"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	"lite.io/lite/pkg/kube"
)

// apiServices is what the API server itself knows of aggregated APIs.
type apiServices struct {
	lister listers.APIServiceLister
	local  map[string]string // those that this process answers itself
}

// note names the aggregated APIs of users that do not answer. Whatever asks for
// all kinds, as the deletion of a namespace does, waits for them.
func (s *apiServices) note() string {
	if s == nil {
		return ""
	}
	all, err := s.lister.List(labels.Everything())
	if err != nil {
		return ""
	}
	var lines []string
	for _, api := range all {
		if down := helper.GetAPIServiceConditionByType(api, v1.Available); s.users(api) && down != nil && down.Status == v1.ConditionFalse {
			lines = append(lines, fmt.Sprintf("APIService %s does not answer: %s", api.Name, down.Message))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

func (s *apiServices) users(api *v1.APIService) bool {
	service := api.Spec.Service
	return service != nil && s.local[service.Namespace+"/"+service.Name] == ""
}

// reclaim gives the API server its own groups back where APIServices lead them to somebody
// else, at each start and while it runs. Upstream's own hooks ask for roles by way of them
// and end the process, each time, so that nobody could take such an APIService away (1.37).
// With "v1." whatever is in the cluster stands still, and asks for help in vain.
type reclaim struct{ changed chan struct{} }

// reclaimPause is how long somebody has who leads a group away again and again.
const reclaimPause = time.Second

// watch has the API server tell when an APIService leads a group of its own elsewhere.
func (r reclaim) watch(informer cache.SharedIndexInformer) error {
	check := func(o any) {
		if api, ok := o.(*v1.APIService); ok && astray(api) {
			select {
			case r.changed <- struct{}{}:
			default:
			}
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: check, UpdateFunc: func(_, now any) { check(now) }})
	return err
}

// hook is a post-start hook: nothing is asked for before it is done.
func (r reclaim) hook(h genericapiserver.PostStartHookContext) error {
	client, err := clientset.NewForConfig(h.LoopbackClientConfig)
	if err != nil {
		return err
	}
	r.all(h, client)
	go r.follow(h, client)
	return nil
}

// follow gives groups back when one was led away, until ctx is done.
func (r reclaim) follow(ctx context.Context, client clientset.Interface) {
	for {
		select {
		case <-r.changed:
			r.all(ctx, client)
			kube.Sleep(ctx, reclaimPause)
		case <-ctx.Done():
			return
		}
	}
}

// all tries until it is done.
func (r reclaim) all(ctx context.Context, client clientset.Interface) {
	for err := reclaimOnce(ctx, client); err != nil && kube.Sleep(ctx, 100*time.Millisecond); {
		err = reclaimOnce(ctx, client)
	}
}

// astray reports whether an APIService leads a group that the API server has itself to
// somebody else.
func astray(api *v1.APIService) bool {
	own := legacyscheme.Scheme.IsGroupRegistered(api.Spec.Group) || api.Spec.Group == apiextensions.GroupName || api.Spec.Group == v1.GroupName
	return own && api.Spec.Service != nil
}

func reclaimOnce(ctx context.Context, client clientset.Interface) error {
	services := client.ApiregistrationV1().APIServices()
	all, err := services.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, api := range all.Items {
		if !astray(&api) {
			continue
		}
		slog.Warn("An APIService sent a group of Kubernetes itself elsewhere; reset it to the API server",
			"apiservice", api.Name, "service", api.Spec.Service.Namespace+"/"+api.Spec.Service.Name)
		api.Spec.Service, api.Spec.CABundle, api.Spec.InsecureSkipTLSVerify = nil, nil, false
		metav1.SetMetaDataLabel(&api.ObjectMeta, autoregister.AutoRegisterManagedLabel, "onstart")
		if _, err := services.Update(ctx, &api, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return nil
}
