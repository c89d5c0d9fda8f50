// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"

	"vmctl/daemon/api"
	"vmctl/daemon/auth"
)

// VMPath names a VM. Its form is checked by find: chi hands GET /v1/vms/{id}:verb
// and an escaped colon to the plain route.
type VMPath struct {
	ID string `path:"id" doc:"uuid or name of the VM" maxLength:"128"`
}

// PostHeaders are the headers of every POST but consoleToken. (Embedded types
// are exported: huma reads no others.)
type PostHeaders struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"128" doc:"The same key and body give the same answer for 24 h"`
}

type listVMsInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	Cursor string `query:"cursor" maxLength:"512"`
}

type listVMsOutput struct{ Body api.VMList }

type vmOutput struct {
	ETag string `header:"ETag" doc:"The generation, quoted"`
	Body api.VM
}

type createVMInput struct {
	PostHeaders
	Body api.VMCreate
}

type createVMOutput struct {
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     api.VM
}

type verbInput struct {
	VMPath
	PostHeaders
}

type changeVMInput struct {
	VMPath
	IfMatch string       `header:"If-Match" maxLength:"64" doc:"Needed: the VM's ETag, or * for any"`
	Body    api.VMChange `contentType:"application/merge-patch+json"`
}

type setBalloonInput struct {
	VMPath
	PostHeaders
	Body api.BalloonTarget
}

type balloonOutput struct{ Body api.Balloon }

type attachDiskInput struct {
	VMPath
	PostHeaders
	Body api.DiskAttach
}

type detachDiskInput struct {
	VMPath
	PostHeaders
	Body api.DiskDetach
}

type attachNICInput struct {
	VMPath
	PostHeaders
	Body api.NICAttach
}

type detachNICInput struct {
	VMPath
	PostHeaders
	Body api.NICDetach
}

type diskInput struct {
	VMPath
	Disk int `path:"disk" minimum:"0" maximum:"15" doc:"The disk's place in the VM's spec, from 0 on"`
	PostHeaders
}

type deleteVMInput struct {
	VMPath
	IfMatch string `header:"If-Match" maxLength:"64" doc:"Only if the VM still has this generation"`
}

type seedOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         api.Seed
}

type taskAcceptedOutput struct{ Body api.TaskAccepted }

type consoleTokenInput struct {
	VMPath
	Body *api.ConsoleTokenRequest `required:"false"`
}

type consoleTokenOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         api.ConsoleToken
}

func (s *Server) registerVMs() {
	handle(s, s.op("listVMs", http.MethodGet, "/v1/vms", "VMs that the caller may see, by name"), s.listVMs)
	handle(s, s.op("createVM", http.MethodPost, "/v1/vms", "Create a VM; it is off", http.StatusCreated), s.createVM)
	handle(s, s.op("getVM", http.MethodGet, "/v1/vms/{id}", "One VM"), s.getVM)
	handle(s, s.op("getSeed", http.MethodGet, "/v1/vms/{id}/seed", "What is in a VM's seed: for admins, since it may hold secrets"), s.getSeed)
	handle(s, s.op("changeVM", http.MethodPatch, "/v1/vms/{id}", "Change a VM's name or spec; of a VM that is up or saved, limits and links of its devices, its balloon and what follows its end"), s.changeVM)
	handle(s, s.op("setBalloon", http.MethodPost, "/v1/vms/{id}:setBalloon", "Say how much of its memory the guest is to give back to the host: changeVM of nothing else, and of any generation"), s.setBalloon)
	handle(s, s.op("getBalloon", http.MethodGet, "/v1/vms/{id}/balloon", "How much of its memory the guest of a VM that is up has given back, and how it says that it uses the rest"), s.getBalloon)
	handle(s, s.op("deleteVM", http.MethodDelete, "/v1/vms/{id}", "Delete a VM that is off", http.StatusAccepted), s.deleteVM)
	handle(s, s.op("powerOn", http.MethodPost, "/v1/vms/{id}:powerOn", "Start a VM", http.StatusAccepted), s.power(api.VerbPowerOn))
	handle(s, s.op("powerOff", http.MethodPost, "/v1/vms/{id}:powerOff", "Stop a VM now; neither guest nor monitor can refuse", http.StatusAccepted), s.power(api.VerbPowerOff))
	handle(s, s.op("shutdown", http.MethodPost, "/v1/vms/{id}:shutdown", "Press the power button of a running VM; the task is done when it was pressed, what the guest makes of it is seen in the state", http.StatusAccepted), s.power(api.VerbShutdown))
	handle(s, s.op("pause", http.MethodPost, "/v1/vms/{id}:pause", "Pause a running VM: from the end of the task on no instruction of the guest begins", http.StatusAccepted), s.power(api.VerbPause))
	handle(s, s.op("resume", http.MethodPost, "/v1/vms/{id}:resume", "Let a paused VM go on", http.StatusAccepted), s.power(api.VerbResume))
	handle(s, s.op("save", http.MethodPost, "/v1/vms/{id}:save", "Write a running VM down and stop it; powerOn goes on from there, powerOff forgets it", http.StatusAccepted), s.power(api.VerbSave))
	handle(s, s.op("snapshot", http.MethodPost, "/v1/vms/{id}/disks/{disk}:snapshot", "Keep what a disk has now: the VM, which may run, goes on in a new overlay above it", http.StatusAccepted), s.disk(api.VerbSnapshot))
	handle(s, s.op("merge", http.MethodPost, "/v1/vms/{id}/disks/{disk}:merge", "Write the newest snapshot's overlay of a disk into the one behind it, and remove it, while the VM runs", http.StatusAccepted), s.disk(api.VerbMerge))
	handle(s, s.op("attachDisk", http.MethodPost, "/v1/vms/{id}:attachDisk", "Add a disk to a VM, behind its others; the guest of one that is up finds it at once", http.StatusAccepted), s.attachDisk)
	handle(s, s.op("detachDisk", http.MethodPost, "/v1/vms/{id}:detachDisk", "Take a disk from a VM: a guest that runs is asked to let go of it, and the task fails when it has not in 30 s; the disk then goes when it has, is reset or ends", http.StatusAccepted), s.detachDisk)
	handle(s, s.op("attachNic", http.MethodPost, "/v1/vms/{id}:attachNic", "Add a network card to a VM, as attachDisk", http.StatusAccepted), s.attachNIC)
	handle(s, s.op("detachNic", http.MethodPost, "/v1/vms/{id}:detachNic", "Take a network card from a VM, as detachDisk", http.StatusAccepted), s.detachNIC)
	handle(s, s.op("reset", http.MethodPost, "/v1/vms/{id}:reset", "Reset a running VM; consoles and runId stay", http.StatusAccepted), s.power(api.VerbReset))
	handle(s, s.op("consoleToken", http.MethodPost, "/v1/vms/{id}:consoleToken", "Get a token that opens the console once; takes no Idempotency-Key, since the answer is a secret"), s.consoleToken)
}

// find authorizes and returns the VM that a path names: what does not exist
// and what may not be seen look the same.
func (s *Server) find(ctx context.Context, ident string, action auth.Action) (api.VM, error) {
	if !api.ValidIdent(ident) {
		return api.VM{}, &api.Error{Code: api.CodeNameInvalid, Field: "path.id",
			Detail: "neither a uuid nor a name of lower-case letters, digits and inner hyphens"}
	}
	vm, err := s.Machines.Find(ident)
	if err != nil {
		// Somebody without any grant learns here no more than from a denial.
		if aerr := s.Auth.AuthorizeList(ctx); aerr != nil {
			return api.VM{}, aerr
		}
		return api.VM{}, err
	}
	return vm, s.Auth.Authorize(ctx, action, vm.ID)
}

func (s *Server) listVMs(ctx context.Context, in *listVMsInput) (*listVMsOutput, error) {
	if err := s.Auth.AuthorizeList(ctx); err != nil {
		return nil, err
	}
	after, err := decodeCursor("vms", in.Cursor)
	if err != nil {
		return nil, err
	}
	all, seq := s.Machines.List()
	caller := auth.CallerOf(ctx)
	page := api.VMList{Items: make([]api.VM, 0, min(in.Limit, len(all))), EventSeq: seq}
	for _, vm := range all[sort.Search(len(all), func(i int) bool { return all[i].Name > after }):] {
		if !s.Auth.Can(caller, auth.ActionView, vm.ID) {
			continue
		}
		if len(page.Items) == in.Limit {
			page.NextCursor = encodeCursor("vms", page.Items[in.Limit-1].Name)
			break
		}
		page.Items = append(page.Items, vm)
	}
	return &listVMsOutput{Body: page}, nil
}

func (s *Server) createVM(ctx context.Context, in *createVMInput) (*createVMOutput, error) {
	if err := s.Auth.Authorize(ctx, auth.ActionCreate, ""); err != nil {
		return nil, err
	}
	vm, err := s.Machines.Create(ctx, in.Body)
	if err != nil {
		return nil, err
	}
	return &createVMOutput{ETag: etag(vm), Location: "/v1/vms/" + vm.ID, Body: vm}, nil
}

func (s *Server) getVM(ctx context.Context, in *VMPath) (*vmOutput, error) {
	vm, err := s.find(ctx, in.ID, auth.ActionView)
	if err != nil {
		return nil, err
	}
	return &vmOutput{ETag: etag(vm), Body: vm}, nil
}

func (s *Server) getSeed(ctx context.Context, in *VMPath) (*seedOutput, error) {
	vm, err := s.find(ctx, in.ID, auth.ActionSeed)
	if err != nil {
		return nil, err
	}
	seed, err := s.Machines.Seed(ctx, vm.ID)
	if err != nil {
		return nil, err
	}
	return &seedOutput{CacheControl: "no-store", Body: seed}, nil
}

func (s *Server) changeVM(ctx context.Context, in *changeVMInput) (*vmOutput, error) {
	vm, err := s.find(ctx, in.ID, auth.ActionChange)
	if err != nil {
		return nil, err
	}
	if in.IfMatch == "" {
		return nil, &api.Error{Code: api.CodePreconditionRequired, Field: "header.If-Match", Detail: "say which generation of the VM is to change"}
	}
	generation, err := parseETag(in.IfMatch)
	if err != nil {
		return nil, err
	}
	if generation != 0 && generation != vm.Generation {
		return nil, &api.Error{Code: api.CodePreconditionFailed, Detail: fmt.Sprintf("the VM has generation %d", vm.Generation)}
	}
	name := cmp.Or(in.Body.Name, vm.Name)
	spec, err := s.merge(ctx, vm.Spec, in.Body.Spec)
	if err != nil {
		return nil, err
	}
	if vm, err = s.Machines.Change(ctx, vm.ID, vm.Generation, name, spec); err != nil {
		return nil, err
	}
	return &vmOutput{ETag: etag(vm), Body: vm}, nil
}

func (s *Server) setBalloon(ctx context.Context, in *setBalloonInput) (*vmOutput, error) {
	vm, err := s.find(ctx, in.ID, auth.ActionChange)
	if err != nil {
		return nil, err
	}
	if vm, err = s.Machines.SetBalloon(ctx, vm.ID, in.Body.BalloonBytes); err != nil {
		return nil, err
	}
	return &vmOutput{ETag: etag(vm), Body: vm}, nil
}

func (s *Server) getBalloon(ctx context.Context, in *VMPath) (*balloonOutput, error) {
	vm, err := s.find(ctx, in.ID, auth.ActionView)
	if err != nil {
		return nil, err
	}
	b, err := s.Machines.Balloon(vm.ID)
	if err != nil {
		return nil, err
	}
	return &balloonOutput{Body: b}, nil
}

func (s *Server) deleteVM(ctx context.Context, in *deleteVMInput) (*taskAcceptedOutput, error) {
	vm, err := s.find(ctx, in.ID, auth.ActionDelete)
	if err != nil {
		return nil, err
	}
	generation, err := parseETag(in.IfMatch)
	if err != nil {
		return nil, err
	}
	task, err := s.Machines.Ask(ctx, vm.ID, api.VerbDelete, generation)
	if err != nil {
		return nil, err
	}
	return &taskAcceptedOutput{Body: api.TaskAccepted{Task: task}}, nil
}

func (s *Server) power(verb api.Verb) func(context.Context, *verbInput) (*taskAcceptedOutput, error) {
	return func(ctx context.Context, in *verbInput) (*taskAcceptedOutput, error) {
		vm, err := s.find(ctx, in.ID, auth.ActionPower)
		if err != nil {
			return nil, err
		}
		task, err := s.Machines.Ask(ctx, vm.ID, verb, 0)
		if err != nil {
			return nil, err
		}
		return &taskAcceptedOutput{Body: api.TaskAccepted{Task: task}}, nil
	}
}

func (s *Server) disk(verb api.Verb) func(context.Context, *diskInput) (*taskAcceptedOutput, error) {
	return func(ctx context.Context, in *diskInput) (*taskAcceptedOutput, error) {
		vm, err := s.find(ctx, in.ID, auth.ActionPower)
		if err != nil {
			return nil, err
		}
		task, err := s.Machines.AskDisk(ctx, vm.ID, verb, in.Disk)
		if err != nil {
			return nil, err
		}
		return &taskAcceptedOutput{Body: api.TaskAccepted{Task: task}}, nil
	}
}

func (s *Server) attachDisk(ctx context.Context, in *attachDiskInput) (*taskAcceptedOutput, error) {
	return s.device(ctx, in.ID, api.VerbAttachDisk, api.Device{Disk: &in.Body.Disk})
}

func (s *Server) detachDisk(ctx context.Context, in *detachDiskInput) (*taskAcceptedOutput, error) {
	return s.device(ctx, in.ID, api.VerbDetachDisk, api.Device{Disk: &api.DiskSpec{Path: in.Body.Path}})
}

func (s *Server) attachNIC(ctx context.Context, in *attachNICInput) (*taskAcceptedOutput, error) {
	return s.device(ctx, in.ID, api.VerbAttachNIC, api.Device{NIC: &in.Body.NIC})
}

func (s *Server) detachNIC(ctx context.Context, in *detachNICInput) (*taskAcceptedOutput, error) {
	return s.device(ctx, in.ID, api.VerbDetachNIC, api.Device{NIC: &api.NICSpec{MAC: in.Body.MAC}})
}

func (s *Server) device(ctx context.Context, ident string, verb api.Verb, d api.Device) (*taskAcceptedOutput, error) {
	vm, err := s.find(ctx, ident, auth.ActionChange)
	if err != nil {
		return nil, err
	}
	task, err := s.Machines.AskDevice(ctx, vm.ID, verb, d)
	if err != nil {
		return nil, err
	}
	return &taskAcceptedOutput{Body: api.TaskAccepted{Task: task}}, nil
}

func (s *Server) consoleToken(ctx context.Context, in *consoleTokenInput) (*consoleTokenOutput, error) {
	vm, err := s.find(ctx, in.ID, auth.ActionConsole)
	if err != nil {
		return nil, err
	}
	mode := api.ConsoleReadWrite
	if in.Body != nil && in.Body.Mode != "" {
		mode = in.Body.Mode
	}
	token, err := s.Machines.ConsoleToken(ctx, vm.ID, mode)
	if err != nil {
		return nil, err
	}
	return &consoleTokenOutput{CacheControl: "no-store", Body: token}, nil
}

func etag(vm api.VM) string { return strconv.Quote(strconv.FormatInt(vm.Generation, 10)) }

// parseETag reads an If-Match: empty and "*" are 0, which matches all.
func parseETag(s string) (int64, error) {
	if s == "" || s == "*" {
		return 0, nil
	}
	n, err := strconv.ParseInt(strings.Trim(s, `"`), 10, 64)
	if err != nil || n < 1 || s != strconv.Quote(strconv.FormatInt(n, 10)) {
		return 0, &api.Error{Code: api.CodePreconditionFailed, Field: "header.If-Match", Detail: "not an ETag of a VM"}
	}
	return n, nil
}
