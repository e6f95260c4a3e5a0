package packaging

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"spacehost/internal/cli"
	"spacehost/internal/config"
)

const kubernetesDir = "../../docker/kubernetes"

// kubernetesSchema describes the kinds of objects in kubernetesDir, without fields that Kubernetes does not know. Its comment names its source.
func kubernetesSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("testdata/kubernetes-1.34.4.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// object holds the parts of a Kubernetes object that the tests compare.
type object struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Ports                []struct{ Port int }
		VolumeClaimTemplates []object
		Selector             map[string]any
		Template             struct {
			Metadata struct{ Labels map[string]any }
			Spec     struct {
				Containers []container
				Volumes    []struct {
					Name                  string
					ConfigMap             struct{ Name string }
					PersistentVolumeClaim struct{ ClaimName string }
				}
			}
		}
	}
}

type container struct {
	Image        string
	Args         []string
	Env          []struct{ Name, Value string }
	Ports        []struct{ ContainerPort int }
	VolumeMounts []struct{ Name, MountPath string }
}

// documents decodes the YAML documents of a file by way of JSON, whose decoder finds the names of fields regardless of case.
func documents[T any](t *testing.T, text string) (all []T) {
	t.Helper()
	for decoder := yaml.NewDecoder(strings.NewReader(text)); ; {
		var value any
		var one T
		err := decoder.Decode(&value)
		if errors.Is(err, io.EOF) {
			return all
		}
		asJSON, jsonErr := json.Marshal(value)
		if err := errors.Join(err, jsonErr, json.Unmarshal(asJSON, &one)); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
}

func readManifest(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(kubernetesDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestKubernetesSchema validates the manifests, and mistakes in them.
func TestKubernetesSchema(t *testing.T) {
	schema := kubernetesSchema(t)
	validate := func(text string) (errs []error) {
		for _, one := range documents[any](t, text) {
			errs = append(errs, schema.Validate(one))
		}
		return errs
	}
	manifests := map[string]string{}
	for name, kinds := range map[string]int{"front.yaml": 4, "agents.yaml": 1} {
		manifests[name] = readManifest(t, name)
		if errs := validate(manifests[name]); len(errs) != kinds || errors.Join(errs...) != nil {
			t.Errorf("%s has %d objects: %v", name, len(errs), errors.Join(errs...))
		}
	}
	for _, mistake := range []struct{ file, from, to string }{
		{"agents.yaml", "  replicas: 2", "  replica: 2"},
		{"agents.yaml", "procMount:", "procmount:"},
		{"agents.yaml", "drop: [ALL]", "drop: ALL"},
		{"agents.yaml", "hostUsers: false", "hostUsers: \"false\""},
		{"agents.yaml", "      securityContext:\n", "      podSecurityContext:\n"},
		{"agents.yaml", "apiVersion: apps/v1", "apiVersion: v1"},
		{"agents.yaml", "kind: StatefulSet", "kind: DaemonSets"},
		{"agents.yaml", "  selector: {matchLabels: {app: spacehost-agent}}\n", ""},
		{"front.yaml", "targetPort: agents", "target: agents"},
		{"front.yaml", "accessModes: [ReadWriteOnce]", "accessMode: ReadWriteOnce"},
		{"front.yaml", "fsGroup: 1000", "fsGroup: spacehost"},
		{"front.yaml", "exec: {command:", "exec: {commands:"},
	} {
		text := manifests[mistake.file]
		if wrong := strings.Replace(text, mistake.from, mistake.to, 1); wrong == text || errors.Join(validate(wrong)...) == nil {
			t.Errorf("%s: %q in place of %q passes", mistake.file, mistake.to, mistake.from)
		}
	}
}

// TestKubernetesManifests compares the objects with each other, with the configuration of the front, and with the flags of the program.
func TestKubernetesManifests(t *testing.T) {
	byKind := map[string]object{}
	for _, name := range []string{"front.yaml", "agents.yaml"} {
		for _, o := range documents[object](t, readManifest(t, name)) {
			byKind[o.Kind] = o
		}
	}
	front, agents, service := byKind["Deployment"], byKind["StatefulSet"], byKind["Service"]
	run, join := front.Spec.Template.Spec.Containers[0], agents.Spec.Template.Spec.Containers[0]
	if run.Image != join.Image {
		t.Errorf("the front has image %s, the agents %s", run.Image, join.Image)
	}
	for _, o := range []object{front, agents} {
		want := o.Spec.Template.Metadata.Labels
		selector, _ := o.Spec.Selector["matchLabels"].(map[string]any)
		if len(want) != 1 || selector["app"] != want["app"] {
			t.Errorf("%s selects %v of pods with %v", o.Kind, selector, want)
		}
		var volumes []string
		for _, v := range o.Spec.Template.Spec.Volumes {
			volumes = append(volumes, v.Name)
			if claim := v.PersistentVolumeClaim.ClaimName; claim != "" && claim != byKind["PersistentVolumeClaim"].Metadata.Name {
				t.Errorf("%s: there is no claim %s", o.Kind, claim)
			}
			if v.ConfigMap.Name != "" && v.ConfigMap.Name != byKind["ConfigMap"].Metadata.Name {
				t.Errorf("%s: there is no ConfigMap %s", o.Kind, v.ConfigMap.Name)
			}
		}
		for _, claim := range o.Spec.VolumeClaimTemplates {
			volumes = append(volumes, claim.Metadata.Name)
		}
		mounts := o.Spec.Template.Spec.Containers[0].VolumeMounts
		if len(mounts) != len(volumes) {
			t.Errorf("%s has the volumes %v, and mounts %v", o.Kind, volumes, mounts)
		}
		for _, mount := range mounts {
			if !slices.Contains(volumes, mount.Name) {
				t.Errorf("%s: there is no volume %s", o.Kind, mount.Name)
			}
		}
	}
	if service.Spec.Selector["app"] != front.Spec.Template.Metadata.Labels["app"] {
		t.Errorf("the Service selects %v", service.Spec.Selector)
	}

	// The folder of the image is replaced by that of the repository.
	sample, err := filepath.Abs("../../examples/hello-zerogpu")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "lab.yaml")
	text := strings.ReplaceAll(byKind["ConfigMap"].Data["lab.yaml"], "/spaces/hello-zerogpu", sample)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, warnings, err := config.Load(file, "")
	if err != nil || len(warnings) > 0 || !s.IsFront() || len(s.Spaces) != 1 {
		t.Fatal(err, warnings, s.Spaces)
	}
	labels := checkFlags(t, join.Args)
	if on := s.Spaces[0].On; !slices.Equal(on, labels) {
		t.Errorf("the Space has on: %v, the agents have the labels %v", on, labels)
	}
	checkFlags(t, run.Args)
	var want, published []int
	for _, address := range []string{s.Spaces[0].Addr.Value, s.Console.Value, s.Cluster.Listen.Value} {
		_, port, err := net.SplitHostPort(address)
		number, convErr := strconv.Atoi(port)
		if err := errors.Join(err, convErr); err != nil {
			t.Fatal(err)
		}
		want = append(want, number)
	}
	for _, p := range service.Spec.Ports {
		published = append(published, p.Port)
	}
	var open []int
	for _, p := range run.Ports {
		open = append(open, p.ContainerPort)
	}
	if !slices.Equal(published, want) || !slices.Equal(open, want) {
		t.Errorf("the configuration has the ports %v, the pod %v, the Service %v", want, open, published)
	}
	if address := service.Metadata.Name + ":" + strconv.Itoa(want[2]); !slices.Contains(join.Args, address) {
		t.Errorf("the agents do not join %s: %v", address, join.Args)
	}
}

// checkFlags parses the arguments of a container as the program does. It returns the labels of an agent.
func checkFlags(t *testing.T, args []string) []string {
	t.Helper()
	c, rest, err := cli.NewRoot().Find(args)
	if err == nil {
		err = c.ParseFlags(rest)
	}
	if err != nil || c.Flags().NArg() > 0 {
		t.Fatalf("%v: %v", args, err)
	}
	labels, _ := c.Flags().GetStringSlice("label") // serve has none
	return labels
}
