// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"vmctl/daemon/api"
)

// states counts VMs and tasks by state at the time of the scrape.
type states struct{ source Source }

var (
	vmsDesc   = prometheus.NewDesc("vmctld_vms", "VMs by state.", []string{"state"}, nil)
	tasksDesc = prometheus.NewDesc("vmctld_tasks", "Tasks in the record, by state.", []string{"state"}, nil)
	eventDesc = prometheus.NewDesc("vmctld_events_total", "Events written to the journal.", nil, nil)
	okDesc    = prometheus.NewDesc("vmctld_collector_success", "1 when the collector could read.", []string{"collector"}, nil)
)

// Describe sends the names.
func (s *states) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{vmsDesc, tasksDesc, eventDesc, okDesc} {
		ch <- d
	}
}

// Collect sends the counts; every state has its series, also with none in it.
func (s *states) Collect(ch chan<- prometheus.Metric) {
	vms, seq := s.source.VMs()
	count := make(map[api.State]int)
	for i := range vms {
		count[vms[i].Status.State]++
	}
	for _, st := range []api.State{api.StateOff, api.StateStarting, api.StateRunning, api.StatePaused, api.StateStopping} {
		ch <- prometheus.MustNewConstMetric(vmsDesc, prometheus.GaugeValue, float64(count[st]), string(st))
	}
	ch <- prometheus.MustNewConstMetric(eventDesc, prometheus.CounterValue, float64(seq))
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	tasks, err := s.source.TaskStates(ctx)
	ok := 1.0
	if err != nil {
		ok = 0
	}
	ch <- prometheus.MustNewConstMetric(okDesc, prometheus.GaugeValue, ok, "tasks")
	if err != nil {
		return
	}
	for _, st := range []api.TaskState{api.TaskQueued, api.TaskRunning, api.TaskSucceeded, api.TaskFailed} {
		ch <- prometheus.MustNewConstMetric(tasksDesc, prometheus.GaugeValue, float64(tasks[st]), string(st))
	}
}
