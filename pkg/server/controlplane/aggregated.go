package controlplane

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	v1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	listers "k8s.io/kube-aggregator/pkg/client/listers/apiregistration/v1"
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
