// Command crds prints what virt-operator would install, as one v1 List: KubeVirt's custom resource definitions, the
// roles of its parts, and virt-api's webhooks. The webhooks still name virt-api's Service; whoever applies them puts
// in the address at which virt-api listens.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/rbac"
)

const namespace = "kubevirt"

func main() {
	list, err := objects()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(map[string]any{"apiVersion": "v1", "kind": "List", "items": list})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crds:", err)
		os.Exit(1)
	}
}

func objects() ([]runtime.Object, error) {
	var list []runtime.Object
	for _, constructor := range []func() (*apiextensions.CustomResourceDefinition, error){
		components.NewVirtualMachineInstanceCrd,
		components.NewVirtualMachineCrd,
		components.NewPresetCrd,
		components.NewReplicaSetCrd,
		components.NewVirtualMachineInstanceMigrationCrd,
		components.NewKubeVirtCrd,
		components.NewVirtualMachinePoolCrd,
		components.NewVirtualMachineSnapshotCrd,
		components.NewVirtualMachineSnapshotContentCrd,
		components.NewVirtualMachineRestoreCrd,
		components.NewVirtualMachineExportCrd,
		components.NewVirtualMachineBackupCrd,
		components.NewVirtualMachineBackupTrackerCrd,
		components.NewVirtualMachineInstancetypeCrd,
		components.NewVirtualMachineClusterInstancetypeCrd,
		components.NewVirtualMachinePreferenceCrd,
		components.NewVirtualMachineClusterPreferenceCrd,
		components.NewMigrationPolicyCrd,
		components.NewVirtualMachineCloneCrd,
	} {
		definition, err := constructor()
		if err != nil {
			return nil, err
		}
		// The builder leaves an empty status behind, which the API server would take for a claim on the field.
		definition.Status = apiextensions.CustomResourceDefinitionStatus{}
		list = append(list, definition)
	}
	for _, roles := range [][]runtime.Object{
		rbac.GetAllCluster(), rbac.GetAllController(namespace, true), rbac.GetAllApiServer(namespace), rbac.GetAllHandler(namespace),
	} {
		list = append(list, roles...)
	}
	mutating := components.NewVirtAPIMutatingWebhookConfiguration(namespace)
	validating := components.NewVirtAPIValidatingWebhookConfiguration(namespace)
	return append(list, mutating, validating), nil
}
