package main

import (
	"time"

	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// staticInformer is an informer without a server: its content is exchanged at once and its handlers are called in the
// same goroutine. Informers on a fake clientset would deliver later, so every case would have to wait and poll.
// The embedded informer answers the methods that no plugin depends on; it is never started.
type staticInformer struct {
	cache.SharedIndexInformer
	handlers []cache.ResourceEventHandler
}

type registration struct {
	cache.ResourceEventHandlerRegistration
}

func (registration) HasSynced() bool { return true }

func (s *staticInformer) HasSynced() bool { return true }

func (s *staticInformer) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	s.handlers = append(s.handlers, handler)
	return registration{}, nil
}

func (s *staticInformer) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, _ time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return s.AddEventHandler(handler)
}

func (s *staticInformer) AddEventHandlerWithOptions(handler cache.ResourceEventHandler, _ cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return s.AddEventHandler(handler)
}

// replace exchanges all objects. What was there is deleted first, so no handler compares versions across cases.
func (s *staticInformer) replace(objects []runtime.Object) error {
	indexer := s.GetIndexer()
	for _, old := range indexer.List() {
		if err := indexer.Delete(old); err != nil {
			return err
		}
		for _, handler := range s.handlers {
			handler.OnDelete(old)
		}
	}
	for _, object := range objects {
		if err := indexer.Add(object); err != nil {
			return err
		}
		for _, handler := range s.handlers {
			handler.OnAdd(object, false)
		}
	}
	return nil
}

// store maps each kind that the plugins read to its informer and to its objects in a case.
type store struct {
	kinds []kind
}

type kind struct {
	informer *staticInformer
	objects  func(*Case) []runtime.Object
}

// newStore puts our informers into the factory before any plugin asks it for one; the factory keeps the first by type.
func newStore(factory informers.SharedInformerFactory) *store {
	s := &store{}
	add(s, factory, &v1.Node{}, func(c *Case) []*v1.Node { return c.Nodes })
	add(s, factory, &v1.Pod{}, func(c *Case) []*v1.Pod { return c.Pods })
	add(s, factory, &v1.Namespace{}, func(c *Case) []*v1.Namespace { return c.Namespaces })
	add(s, factory, &storagev1.StorageClass{}, func(c *Case) []*storagev1.StorageClass { return c.StorageClasses })
	add(s, factory, &storagev1.CSINode{}, func(c *Case) []*storagev1.CSINode { return c.CSINodes })
	add(s, factory, &storagev1.CSIDriver{}, func(c *Case) []*storagev1.CSIDriver { return c.CSIDrivers })
	add(s, factory, &storagev1.CSIStorageCapacity{}, func(c *Case) []*storagev1.CSIStorageCapacity { return c.CSIStorageCapacities })
	add(s, factory, &storagev1.VolumeAttachment{}, func(c *Case) []*storagev1.VolumeAttachment { return c.VolumeAttachments })
	add(s, factory, &v1.PersistentVolume{}, func(c *Case) []*v1.PersistentVolume { return c.PersistentVolumes })
	add(s, factory, &v1.PersistentVolumeClaim{}, func(c *Case) []*v1.PersistentVolumeClaim { return c.PersistentVolumeClaims })
	add(s, factory, &resourcev1.DeviceClass{}, func(c *Case) []*resourcev1.DeviceClass { return c.DeviceClasses })
	add(s, factory, &resourcev1.ResourceSlice{}, func(c *Case) []*resourcev1.ResourceSlice { return c.ResourceSlices })
	add(s, factory, &resourcev1.ResourceClaim{}, func(c *Case) []*resourcev1.ResourceClaim { return c.ResourceClaims })
	return s
}

func add[T runtime.Object](s *store, factory informers.SharedInformerFactory, example T, objects func(*Case) []T) {
	informer := &staticInformer{}
	factory.InformerFor(example, func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer {
		index := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
		informer.SharedIndexInformer = cache.NewSharedIndexInformer(&cache.ListWatch{}, example, 0, index)
		return informer
	})
	s.kinds = append(s.kinds, kind{informer: informer, objects: func(c *Case) []runtime.Object {
		list := objects(c)
		result := make([]runtime.Object, len(list))
		for i, object := range list {
			result[i] = object
		}
		return result
	}})
}

func (s *store) replace(request *Case) error {
	for _, kind := range s.kinds {
		if err := kind.informer.replace(kind.objects(request)); err != nil {
			return err
		}
	}
	return nil
}
