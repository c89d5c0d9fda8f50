// SPDX-License-Identifier: Apache-2.0
// Keeps the lists of the page live: list, then watch. One for the whole page
// while somebody is logged in.
import { useQuery, useQueryClient, type QueryClient } from "@tanstack/react-query";
import { createContext, useCallback, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import type { Event, VM, WhoAmI } from "../api/model";
import { api, take } from "../api/client";
import type { ApiError } from "../api/problem";
import { endSession } from "../login/session";
import { Journal } from "./journal";
import { fetchTasks, fetchVMs, tasksKey, vmsKey } from "./lists";
import { applyToTasks, applyToVMs, type Tasks, type VMs } from "./reduce";
import { EventStream, type StreamState } from "./stream";

/** How many events the page keeps, and how many of the past it asks for. */
const maxEvents = 1000;
const pastEvents = 300;

interface LiveValue {
  journal: Journal;
  stream: StreamState;
  retry: () => void;
}

const LiveContext = createContext<LiveValue | undefined>(undefined);

export function Live({ children }: { children: React.ReactNode }) {
  const client = useQueryClient();
  const [journal] = useState(() => new Journal(maxEvents));
  const [stream, setStream] = useState<StreamState>({ at: "connecting" });
  const watching = useRef<EventStream>(undefined);
  const retry = useCallback(() => watching.current?.wake(), []);
  const listed = useQuery<VMs, ApiError>({
    queryKey: vmsKey,
    queryFn: ({ signal }) => fetchVMs(journal, signal),
  }).isSuccess;
  useQuery<Tasks, ApiError>({ queryKey: tasksKey, queryFn: ({ signal }) => fetchTasks(journal, signal) });

  useEffect(() => {
    if (!listed) return;
    const events = watch(client, journal, setStream);
    const wake = () => {
      if (document.visibilityState === "visible") events.wake();
    };
    watching.current = events;
    events.start();
    document.addEventListener("visibilitychange", wake);
    window.addEventListener("online", wake);
    window.addEventListener("pageshow", wake);
    return () => {
      events.stop();
      document.removeEventListener("visibilitychange", wake);
      window.removeEventListener("online", wake);
      window.removeEventListener("pageshow", wake);
    };
  }, [client, journal, listed]);

  const value = useMemo(() => ({ journal, stream, retry }), [journal, stream, retry]);
  return <LiveContext value={value}>{children}</LiveContext>;
}

function watch(client: QueryClient, journal: Journal, onState: (state: StreamState) => void): EventStream {
  return new EventStream({
    open: (since, signal) =>
      fetch(`/api/v1/events?since=${since}`, { signal, headers: { Accept: "text/event-stream" }, cache: "no-store" }),
    since: () => journal.lastSeq || Math.max(0, listedSeq(client) - pastEvents),
    onEvents: (events) => {
      const fresh = journal.add(events);
      client.setQueryData<VMs>(vmsKey, (list) => list && applyToVMs(list, fresh));
      client.setQueryData<Tasks>(tasksKey, (list) => list && applyToTasks(list, fresh));
    },
    onReset: (end) => {
      journal.clear(end.seq);
      void client.invalidateQueries({ queryKey: vmsKey });
      void client.invalidateQueries({ queryKey: tasksKey });
    },
    onState: (state) => {
      onState(state);
      if (state.at === "over") endSession(client, "ended");
    },
  });
}

const listedSeq = (client: QueryClient) =>
  Math.min(
    client.getQueryData<VMs>(vmsKey)?.seq ?? 0,
    client.getQueryData<Tasks>(tasksKey)?.seq ?? Number.MAX_SAFE_INTEGER,
  );

function useLive(): LiveValue {
  const live = useContext(LiveContext);
  if (!live) throw new Error("used outside of Live");
  return live;
}

export const useStream = () => useLive();

/** useVMs: all VMs by name. Live fetches and changes what is in the cache. */
export function useVMs() {
  const query = useQuery<VMs, ApiError>({ queryKey: vmsKey, enabled: false });
  const byId = query.data?.byId;
  const items = useMemo(
    () => (byId ? [...byId.values()].sort((a, b) => a.name.localeCompare(b.name)) : undefined),
    [byId],
  );
  return { ...query, items };
}

/** useVM finds one by name or id. */
export function useVM(ident: string): VM | undefined {
  const { items } = useVMs();
  return useMemo(() => items?.find((vm) => vm.name === ident || vm.id === ident), [items, ident]);
}

export function useTasks() {
  return useQuery<Tasks, ApiError>({ queryKey: tasksKey, enabled: false });
}

/** useEvents: what the page knows of the past, oldest first. */
export function useEvents(): readonly Event[] {
  const { journal } = useLive();
  return useSyncExternalStore(journal.subscribe, journal.all);
}

export function useWhoAmI() {
  return useQuery<WhoAmI, ApiError>({
    queryKey: ["whoami"],
    queryFn: ({ signal }) => take(api.GET("/v1/whoami", { signal })),
  });
}

export function useHost() {
  return useQuery({
    queryKey: ["host"],
    queryFn: ({ signal }) => take(api.GET("/v1/host", { signal })),
  });
}
