package main

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/dynamic-resource-allocation/deviceclass/extendedresourcecache"
	"k8s.io/dynamic-resource-allocation/resourceslice/tracker"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/features"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/dynamicresources"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodevolumelimits"
	"k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
	"k8s.io/kubernetes/pkg/scheduler/util/assumecache"
)

// engine is the default profile's plugins around a snapshot that is exchanged for every case.
type engine struct {
	ctx       context.Context
	framework framework.Framework
	store     *store
	snapshot  *currentSnapshot
}

// currentSnapshot is the lister the plugins keep for their life; what it lists is the present case.
type currentSnapshot struct{ *cache.Snapshot }

func newEngine(ctx context.Context) (*engine, error) {
	metrics.Register()
	configuration, err := latest.Default()
	if err != nil {
		return nil, err
	}
	clientset := fake.NewClientset()
	factory := informers.NewSharedInformerFactory(clientset, 0)
	store := newStore(factory)
	resources, err := resourceManager(ctx, factory)
	if err != nil {
		return nil, err
	}
	snapshot := &currentSnapshot{cache.NewEmptySnapshot()}
	scheduler, err := runtime.NewFramework(ctx, plugins.NewInTreeRegistry(), &configuration.Profiles[0],
		runtime.WithClientSet(clientset),
		runtime.WithInformerFactory(factory),
		runtime.WithSnapshotSharedLister(snapshot),
		runtime.WithSharedDRAManager(resources),
		runtime.WithSharedCSIManager(nodevolumelimits.NewCSIManager(factory.Storage().V1().CSINodes().Lister())),
	)
	if err != nil {
		return nil, err
	}
	return &engine{ctx: ctx, framework: scheduler, store: store, snapshot: snapshot}, nil
}

// resourceManager gives DynamicResources its manager, put together as kube-scheduler does it: the resource filter
// asks it too, whether an extended resource is really a device.
func resourceManager(ctx context.Context, factory informers.SharedInformerFactory) (fwk.SharedDRAManager, error) {
	if utilfeature.DefaultFeatureGate.Enabled(features.DRADeviceTaintRules) {
		return nil, errors.New("device taint rules are on: their informers are not served here")
	}
	slices, err := tracker.StartTracker(ctx, tracker.Options{SliceInformer: factory.Resource().V1().ResourceSlices()})
	if err != nil {
		return nil, err
	}
	claims := factory.Resource().V1().ResourceClaims().Informer()
	claimCache := assumecache.NewAssumeCache(klog.FromContext(ctx), claims, "ResourceClaim", "", nil)
	manager := dynamicresources.NewDRAManager(ctx, claimCache, slices, factory)
	if utilfeature.DefaultFeatureGate.Enabled(features.DRAExtendedResource) {
		// kube-scheduler keeps this cache up to date from the classes' informer in the same way.
		cache := manager.DeviceClassResolver().(*extendedresourcecache.ExtendedResourceCache)
		if _, err := factory.Resource().V1().DeviceClasses().Informer().AddEventHandler(cache); err != nil {
			return nil, err
		}
	}
	return manager, nil
}

// judge answers one case.
func (e *engine) judge(request *Case) *Answer {
	answer := &Answer{ID: request.ID}
	if err := e.load(request); err != nil {
		answer.Error = err.Error()
		return answer
	}
	if request.Pod != nil {
		answer.Verdict = e.verdict(request.Pod, request.Nodes)
	}
	for _, pod := range request.Candidates {
		answer.Verdicts = append(answer.Verdicts, e.verdict(pod, request.Nodes))
	}
	for _, pod := range request.Create {
		created, err := create(pod)
		if err != nil {
			answer.Error = err.Error()
			return answer
		}
		answer.Created = append(answer.Created, created)
	}
	return answer
}

// load shows the case to the plugins. As the scheduler's own informers do, it leaves out pods that have ended, that
// are not bound, or whose node does not exist.
func (e *engine) load(request *Case) error {
	known := sets.New[string]()
	for _, node := range request.Nodes {
		if known.Has(node.Name) {
			return fmt.Errorf("two nodes are called %q", node.Name)
		}
		known.Insert(node.Name)
	}
	bound := make([]*v1.Pod, 0, len(request.Pods))
	for _, pod := range request.Pods {
		ended := pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
		if !ended && known.Has(pod.Spec.NodeName) {
			bound = append(bound, pod)
		}
	}
	e.snapshot.Snapshot = cache.NewSnapshot(bound, request.Nodes)
	return e.store.replace(request)
}

// verdict follows the scheduler's findNodesThatFitPod, but asks every node and does not stop when enough nodes fit.
func (e *engine) verdict(pod *v1.Pod, nodes []*v1.Node) *Verdict {
	verdict := &Verdict{Nodes: make([]Status, 0, len(nodes))}
	diagnosis := framework.Diagnosis{NodeToStatus: framework.NewDefaultNodeToStatus()}
	state := framework.NewCycleState()
	allowed, status, rejecting := e.framework.RunPreFilterPlugins(e.ctx, state, pod)
	if !status.IsSuccess() {
		preFilter := render("", status)
		verdict.PreFilter = &preFilter
		diagnosis.PreFilterMsg = status.Message()
		diagnosis.NodeToStatus.SetAbsentNodesStatus(status)
		verdict.Message = fitError(pod, len(nodes), diagnosis)
		return verdict
	}
	absent := fwk.NewStatus(fwk.UnschedulableAndUnresolvable,
		fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", sets.List(rejecting)))
	fits := false
	for _, node := range nodes {
		status := absent
		if allowed.AllNodes() || allowed.NodeNames.Has(node.Name) {
			status = e.filter(state, pod, node.Name)
		}
		verdict.Nodes = append(verdict.Nodes, render(node.Name, status))
		fits = fits || status.IsSuccess()
		if !status.IsSuccess() {
			diagnosis.NodeToStatus.Set(node.Name, status)
		}
	}
	if !fits {
		verdict.Message = fitError(pod, len(nodes), diagnosis)
	}
	return verdict
}

func (e *engine) filter(state fwk.CycleState, pod *v1.Pod, name string) *fwk.Status {
	node, err := e.snapshot.Get(name)
	if err != nil {
		return fwk.AsStatus(err)
	}
	return e.framework.RunFilterPlugins(e.ctx, state, pod, node)
}

// fitError is the scheduler's message without what preemption adds to it; without nodes it has another error.
func fitError(pod *v1.Pod, nodes int, diagnosis framework.Diagnosis) string {
	if nodes == 0 {
		return "no nodes available to schedule pods"
	}
	return (&framework.FitError{Pod: pod, NumAllNodes: nodes, Diagnosis: diagnosis}).Error()
}

// render copies a status; for success the plugins give none at all, and most of its methods need one.
func render(node string, status *fwk.Status) Status {
	if status.IsSuccess() {
		return Status{Node: node, Code: fwk.Success.String()}
	}
	return Status{Node: node, Plugin: status.Plugin(), Code: status.Code().String(), Reasons: status.Reasons()}
}
