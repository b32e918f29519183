// SPDX-License-Identifier: MIT

// Loads BPF objects with github.com/cilium/ebpf, as vmtest/guest/loader/cilium.py asks for it: a
// line of JSON in, a line of JSON out. It builds with 0.9 and every later release; what only some
// of them have is looked up at run time.
package main

import (
	"bufio"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// How an object is to be loaded. Numbers are those of the kernel's enums.
type request struct {
	File       string               `json:"file"`
	Programs   []string             `json:"programs"` // none: only open it
	Types      map[string][2]uint32 `json:"types"`    // program and attach type, by program
	MaxEntries map[string]uint32    `json:"max_entries"`
	Globals    map[string]int64     `json:"globals"`
	InnerMaps  map[string][4]uint32 `json:"inner_maps"` // type, key, value, entries
	Level      uint32               `json:"level"`
	LogSize    int                  `json:"log_size"`
}

type program struct {
	Name         string `json:"name"`
	Section      string `json:"section"`
	Type         uint32 `json:"type"`
	AttachType   uint32 `json:"attach_type"`
	Instructions uint64 `json:"instructions"`
}

type bpfMap struct {
	Name       string `json:"name"`
	Type       uint32 `json:"type"`
	KeySize    uint32 `json:"key_size"`
	ValueSize  uint32 `json:"value_size"`
	MaxEntries uint32 `json:"max_entries"`
	Flags      uint32 `json:"flags"`
	Inner      bool   `json:"inner"`
}

type answer struct {
	Error      string    `json:"error"`
	Errno      int       `json:"errno"`
	Stage      string    `json:"stage"` // of an error: open, configuration or load
	Log        string    `json:"log"`
	Cut        bool      `json:"cut"`
	Programs   []program `json:"programs"`
	Maps       []bpfMap  `json:"maps"`
	Translated uint32    `json:"translated"`
	Jited      uint32    `json:"jited"`
}

const progArray = 3 // BPF_MAP_TYPE_PROG_ARRAY

func main() {
	memlock := rlimit.RemoveMemlock()
	lines := bufio.NewReader(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked request
		if err := json.Unmarshal(line, &asked); err != nil {
			fmt.Fprintln(os.Stderr, "cilium/ebpf loader:", err)
			os.Exit(2)
		}
		said := serve(&asked)
		if said.Error != "" && memlock != nil {
			said.Error += fmt.Sprintf(" (RLIMIT_MEMLOCK stays: %v)", memlock)
		}
		if err := out.Encode(said); err != nil {
			return
		}
	}
}

func serve(asked *request) answer {
	spec, err := ebpf.LoadCollectionSpec(asked.File)
	if err != nil {
		return failed("open", err)
	}
	if err := adjust(spec, asked); err != nil {
		return failed("configuration", err)
	}
	if len(asked.Programs) == 0 {
		return described(spec)
	}
	return load(spec, asked)
}

func described(spec *ebpf.CollectionSpec) answer {
	said := answer{Programs: []program{}, Maps: []bpfMap{}}
	for name, p := range spec.Programs {
		size := p.Instructions.Size() / 8
		said.Programs = append(said.Programs,
			program{name, p.SectionName, uint32(p.Type), uint32(p.AttachType), size})
	}
	for name, m := range spec.Maps {
		kind := uint32(m.Type)
		inner := m.InnerMap != nil || (kind != 12 && kind != 13) // BPF_MAP_TYPE_*_OF_MAPS
		said.Maps = append(said.Maps,
			bpfMap{name, kind, m.KeySize, m.ValueSize, m.MaxEntries, uint32(m.Flags), inner})
	}
	sort.Slice(said.Programs, func(a, b int) bool {
		return said.Programs[a].Name < said.Programs[b].Name
	})
	sort.Slice(said.Maps, func(a, b int) bool { return said.Maps[a].Name < said.Maps[b].Name })
	return said
}

// All maps, then the programs in their order: as a struct of bpf2go's does it.
func load(spec *ebpf.CollectionSpec, asked *request) answer {
	wanted := map[string]bool{}
	var fields []reflect.StructField
	add := func(kind reflect.Type, name string) {
		tag := reflect.StructTag(fmt.Sprintf("ebpf:%q", name))
		field := fmt.Sprintf("F%d", len(fields))
		fields = append(fields, reflect.StructField{Name: field, Type: kind, Tag: tag})
	}
	for _, name := range asked.Programs {
		wanted[name] = true
	}
	for name, m := range spec.Maps {
		if uint32(m.Type) == progArray {
			m.Contents = slots(m.Contents, wanted)
		}
		add(reflect.TypeOf((*ebpf.Map)(nil)), name)
	}
	sort.Slice(fields, func(a, b int) bool { return fields[a].Tag < fields[b].Tag })
	for n := range fields {
		fields[n].Name = fmt.Sprintf("F%d", n)
	}
	maps := len(fields)
	for _, name := range asked.Programs {
		add(reflect.TypeOf((*ebpf.Program)(nil)), name)
	}
	into := reflect.New(reflect.StructOf(fields))
	var options ebpf.CollectionOptions
	programs := reflect.ValueOf(&options.Programs).Elem()
	programs.FieldByName("LogLevel").SetUint(uint64(asked.Level))
	for _, name := range []string{"LogSize", "LogSizeStart"} { // 0.9 to 0.15, and later ones
		if size := programs.FieldByName(name); size.IsValid() && size.CanInt() {
			size.SetInt(int64(asked.LogSize))
		} else if size.IsValid() && size.CanUint() {
			size.SetUint(uint64(asked.LogSize))
		}
	}
	if err := spec.LoadAndAssign(into.Interface(), &options); err != nil {
		return failed("load", err)
	}
	var said answer
	for n := 0; n < len(fields); n++ {
		switch loaded := into.Elem().Field(n).Interface().(type) {
		case *ebpf.Program:
			if n == maps && len(asked.Programs) == 1 {
				said.Log = loaded.VerifierLog
				said.Translated, said.Jited = sizes(loaded.FD())
			}
			loaded.Close()
		case *ebpf.Map:
			loaded.Close()
		}
	}
	return said
}

// What a PROG_ARRAY is filled with, without the programs that are not loaded now.
func slots(contents []ebpf.MapKV, wanted map[string]bool) []ebpf.MapKV {
	var kept []ebpf.MapKV
	for _, one := range contents {
		if name, ok := one.Value.(string); !ok || wanted[name] {
			kept = append(kept, one)
		}
	}
	return kept
}

func adjust(spec *ebpf.CollectionSpec, asked *request) error {
	for name, types := range asked.Types {
		if p := spec.Programs[name]; p != nil {
			p.Type, p.AttachType = ebpf.ProgramType(types[0]), ebpf.AttachType(types[1])
		}
	}
	for name, count := range asked.MaxEntries {
		m := spec.Maps[name]
		if m == nil {
			return fmt.Errorf("there is no map %s", name)
		}
		m.MaxEntries = count
	}
	for name, t := range asked.InnerMaps {
		m := spec.Maps[name]
		if m == nil {
			return fmt.Errorf("there is no map %s", name)
		}
		m.InnerMap = &ebpf.MapSpec{
			Type: ebpf.MapType(t[0]), KeySize: t[1], ValueSize: t[2], MaxEntries: t[3],
		}
	}
	for name, value := range asked.Globals {
		if err := setGlobal(spec, asked.File, name, value); err != nil {
			return err
		}
	}
	return nil
}

func setGlobal(spec *ebpf.CollectionSpec, file, name string, value int64) error {
	data := make([]byte, 8)
	binary.LittleEndian.PutUint64(data, uint64(value))
	// From 0.17 on a variable has a value of its own.
	if all := reflect.ValueOf(spec).Elem().FieldByName("Variables"); all.IsValid() {
		one := all.MapIndex(reflect.ValueOf(name))
		if !one.IsValid() {
			return fmt.Errorf("there is no variable %s", name)
		}
		size := one.MethodByName("Size").Call(nil)[0].Convert(reflect.TypeOf(uint64(0))).Uint()
		if !fits(value, size) {
			return fmt.Errorf("%d does not fit in %s, which has %d bytes", value, name, size)
		}
		got := one.MethodByName("Set").Call([]reflect.Value{reflect.ValueOf(data[:size])})[0]
		if !got.IsNil() {
			return fmt.Errorf("%s: %v", name, got.Interface())
		}
		return nil
	}
	object, err := elf.Open(file)
	if err != nil {
		return err
	}
	defer object.Close()
	symbols, err := object.Symbols()
	if err != nil {
		return err
	}
	for _, symbol := range symbols {
		if symbol.Name != name || int(symbol.Section) >= len(object.Sections) {
			continue
		}
		m := spec.Maps[object.Sections[symbol.Section].Name]
		if m == nil {
			return fmt.Errorf("%s is no variable", name)
		}
		if !fits(value, symbol.Size) {
			return fmt.Errorf("%d does not fit in %s, which has %d bytes", value, name, symbol.Size)
		}
		if len(m.Contents) == 0 {
			m.Contents = []ebpf.MapKV{{Key: uint32(0), Value: make([]byte, m.ValueSize)}}
		}
		content, ok := m.Contents[0].Value.([]byte)
		if !ok || symbol.Value+symbol.Size > uint64(len(content)) {
			return fmt.Errorf("%s has no place in its section", name)
		}
		copy(content[symbol.Value:], data[:symbol.Size])
		return nil
	}
	return fmt.Errorf("there is no variable %s", name)
}

// Whether a value fits into an integer of that many bytes, with a sign or without.
func fits(value int64, size uint64) bool {
	return size == 8 || size < 8 && value < 1<<(8*size) && value >= -1<<(8*size)/2
}

func failed(stage string, err error) answer {
	said := answer{Error: err.Error(), Stage: stage}
	var number syscall.Errno
	if errors.As(err, &number) {
		said.Errno = int(number)
	}
	for one := err; one != nil; one = errors.Unwrap(one) {
		value := reflect.ValueOf(one)
		if value.Kind() == reflect.Ptr {
			value = value.Elem()
		}
		if value.Kind() != reflect.Struct || value.Type().Name() != "VerifierError" {
			continue
		}
		// Its message is the cause, and lines of the log.
		if cause := errors.Unwrap(one); cause != nil {
			said.Error = strings.Replace(said.Error, one.Error(), cause.Error(), 1)
		}
		said.Log, said.Cut = logOf(value), cutOf(value)
	}
	return said
}

func logOf(verifier reflect.Value) string {
	for _, name := range []string{"Log", "log"} {
		field := verifier.FieldByName(name)
		switch field.Kind() {
		case reflect.String:
			return field.String()
		case reflect.Slice:
			lines := make([]string, field.Len())
			for n := range lines {
				lines[n] = field.Index(n).String()
			}
			return strings.Join(lines, "\n") + "\n"
		}
	}
	return ""
}

func cutOf(verifier reflect.Value) bool {
	for _, name := range []string{"Truncated", "truncated"} {
		if field := verifier.FieldByName(name); field.Kind() == reflect.Bool {
			return field.Bool()
		}
	}
	return false
}

// Bytes of a program, translated and compiled: BPF_OBJ_GET_INFO_BY_FD, struct bpf_prog_info.
func sizes(fd int) (translated, jited uint32) {
	info := make([]byte, 256) // not on the stack, which may move
	attr := struct {
		fd, size uint32
		info     uint64
	}{uint32(fd), 232, uint64(uintptr(unsafe.Pointer(&info[0])))}
	const bpf, getInfo = 321, 15
	_, _, failed := syscall.Syscall(bpf, getInfo, uintptr(unsafe.Pointer(&attr)), 16)
	runtime.KeepAlive(info)
	if failed != 0 {
		return 0, 0
	}
	return binary.LittleEndian.Uint32(info[20:]), binary.LittleEndian.Uint32(info[16:])
}
