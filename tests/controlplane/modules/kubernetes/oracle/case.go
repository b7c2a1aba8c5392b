package main

import (
	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// Case is a cluster and the pods to judge on it, as the API server has stored them (that is, after defaulting).
// Either Pod or Pods to judge in Candidates: many candidates share one reading of the cluster. Create asks what the API
// server would store of a pod that is posted.
type Case struct {
	ID         any       `json:"id,omitempty"`
	Pod        *v1.Pod   `json:"pod,omitempty"`
	Candidates []*v1.Pod `json:"candidates,omitempty"`
	Create     []*v1.Pod `json:"create,omitempty"`

	Nodes                  []*v1.Node                      `json:"nodes"`
	Pods                   []*v1.Pod                       `json:"pods"`
	Namespaces             []*v1.Namespace                 `json:"namespaces"`
	PersistentVolumes      []*v1.PersistentVolume          `json:"persistentVolumes"`
	PersistentVolumeClaims []*v1.PersistentVolumeClaim     `json:"persistentVolumeClaims"`
	StorageClasses         []*storagev1.StorageClass       `json:"storageClasses"`
	CSINodes               []*storagev1.CSINode            `json:"csiNodes"`
	CSIDrivers             []*storagev1.CSIDriver          `json:"csiDrivers"`
	CSIStorageCapacities   []*storagev1.CSIStorageCapacity `json:"csiStorageCapacities"`
	VolumeAttachments      []*storagev1.VolumeAttachment   `json:"volumeAttachments"`
	ResourceClaims         []*resourcev1.ResourceClaim     `json:"resourceClaims"`
	ResourceSlices         []*resourcev1.ResourceSlice     `json:"resourceSlices"`
	DeviceClasses          []*resourcev1.DeviceClass       `json:"deviceClasses"`
}

// Answer holds the verdicts on Case.Pod itself, or one entry in Verdicts for each of Case.Candidates,
// and one in Created for each of Case.Create.
type Answer struct {
	ID       any        `json:"id,omitempty"`
	Error    string     `json:"error,omitempty"`
	Verdict  *Verdict   `json:"verdict,omitempty"`
	Verdicts []*Verdict `json:"verdicts,omitempty"`
	Created  []*Created `json:"created,omitempty"`
}

// Verdict is what the scheduler would say of one pod. Message is its FitError, empty when some node fits.
type Verdict struct {
	PreFilter *Status  `json:"preFilter,omitempty"`
	Nodes     []Status `json:"nodes"`
	Message   string   `json:"message"`
}

// Status is a framework.Status; its code is "Success" where the node fits. Node is empty for PreFilter.
type Status struct {
	Node    string   `json:"node,omitempty"`
	Plugin  string   `json:"plugin,omitempty"`
	Code    string   `json:"code"`
	Reasons []string `json:"reasons,omitempty"`
}
