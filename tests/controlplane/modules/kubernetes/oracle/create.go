package main

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install" // Puts the pod's defaults and conversions into the scheme.
	"k8s.io/kubernetes/pkg/registry/core/pod"
)

// Created is what kube-apiserver makes of a pod that is posted to it, apart from admission: the pod as it would be
// stored (defaults filled in, matchLabelKeys merged into selectors), or why it is refused.
type Created struct {
	Pod    *v1.Pod `json:"pod,omitempty"`
	Errors []Fault `json:"errors,omitempty"`
}

// Fault is one field.Error; Message is the whole of it as the API server says it.
type Fault struct {
	Field   string `json:"field"`
	Type    string `json:"type"`
	Message string `json:"message"`
}

// create runs the API server's own defaulting and its strategy for new pods.
func create(posted *v1.Pod) (*Created, error) {
	legacyscheme.Scheme.Default(posted)
	internal := &core.Pod{}
	if err := legacyscheme.Scheme.Convert(posted, internal, nil); err != nil {
		return nil, err
	}
	ctx := request.WithNamespace(request.NewContext(), posted.Namespace)
	pod.Strategy.PrepareForCreate(ctx, internal)
	faults := pod.Strategy.Validate(ctx, internal)
	if len(faults) > 0 {
		created := &Created{}
		for _, fault := range faults {
			created.Errors = append(created.Errors, Fault{Field: fault.Field, Type: string(fault.Type), Message: fault.Error()})
		}
		return created, nil
	}
	pod.Strategy.Canonicalize(internal)
	stored := &v1.Pod{}
	if err := legacyscheme.Scheme.Convert(internal, stored, nil); err != nil {
		return nil, err
	}
	return &Created{Pod: stored}, nil
}
