package rpc

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"quorate/node"
	"quorate/pki"
)

// methods returns every method of the services of quorate.v1.
func methods(t *testing.T) []protoreflect.MethodDescriptor {
	t.Helper()
	var all []protoreflect.MethodDescriptor
	protoregistry.GlobalFiles.RangeFilesByPackage("quorate.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				all = append(all, file.Services().Get(i).Methods().Get(j))
			}
		}
		return true
	})
	if len(all) < 17 {
		t.Fatalf("only %d methods: the services are not linked", len(all))
	}
	return all
}

func fullName(m protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
}

func newMessage(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	messageType, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return messageType.New().Interface()
}

func TestEveryMethodIsServedAndHasARole(t *testing.T) {
	h := serve(t, Config{Node: &scripted{}})
	offered := h.grpc.GetServiceInfo()
	for _, m := range methods(t) {
		if _, ok := offered[string(m.Parent().FullName())]; !ok {
			t.Errorf("service %s is not registered", m.Parent().FullName())
		}
		r, ok := rules[fullName(m)]
		if !ok || r.role == pki.RoleNone {
			t.Errorf("%s has no row in the role table", m.FullName())
		}
		if m.IsStreamingServer() && r.changes {
			t.Errorf("%s streams, and only unary calls are audited", m.FullName())
		}
		// What has a request id changes something.
		if m.Input().Fields().ByName("request_id") != nil && !r.changes {
			t.Errorf("%s has a request id and is not audited", m.FullName())
		}
	}
	for service, info := range offered {
		for _, method := range info.Methods {
			if _, ok := rules["/"+service+"/"+method.Name]; !ok {
				t.Errorf("%s of %s has no row in the role table", method.Name, service)
			}
		}
	}
}

func TestCheckRulesFindsWhatIsMissing(t *testing.T) {
	h := serve(t, Config{Node: &scripted{}})
	services := h.grpc.GetServiceInfo()
	if err := checkRules(services); err != nil {
		t.Fatal(err)
	}
	services["quorate.v1.New"] = grpc.ServiceInfo{Methods: []grpc.MethodInfo{{Name: "Do"}}}
	if err := checkRules(services); err == nil || !strings.Contains(err.Error(), "/quorate.v1.New/Do") {
		t.Errorf("a method without a row: %v", err)
	}
	services["quorate.v1.New"] = grpc.ServiceInfo{}
	services["quorate.v1.LeaseService"].Methods[0].IsServerStream = true
	if err := checkRules(services); err == nil || !strings.Contains(err.Error(), "another kind") {
		t.Errorf("a stream that is bounded like a call: %v", err)
	}
	delete(services, "quorate.v1.New")
	delete(services, "quorate.v1.LeaseService")
	if err := checkRules(services); err == nil || !strings.Contains(err.Error(), "quorate.v1.LeaseService") {
		t.Errorf("a row without a method: %v", err)
	}
}

func TestEveryMethodHasARESTForm(t *testing.T) {
	h := serve(t, Config{Node: &scripted{}})
	var document struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		}
	}
	if err := json.Unmarshal(openAPI, &document); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	client, base := h.httpClient(t, nil)
	for path, operations := range document.Paths {
		for verb, operation := range operations {
			found[operation.OperationID] = true
			// A body that is no JSON gets as far as the method's own handler and no further.
			url := base + strings.NewReplacer("{id}", "m1", "{partition}", "p1").Replace(path)
			if verb == "get" {
				url += "?nonsense=1"
			}
			request, err := http.NewRequestWithContext(testContext(t), strings.ToUpper(verb), url, strings.NewReader("{"))
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode == http.StatusNotFound || response.StatusCode == http.StatusNotImplemented || response.StatusCode == http.StatusMethodNotAllowed {
				t.Errorf("%s %s: status %d, it is not routed", verb, path, response.StatusCode)
			}
		}
	}
	for _, m := range methods(t) {
		// HTTP has no form for a stream on which both sides speak.
		if id := fmt.Sprintf("%s_%s", m.Parent().Name(), m.Name()); found[id] == m.IsStreamingClient() {
			t.Errorf("%s has a rule in proto/rest.yaml: %v", m.FullName(), found[id])
		}
	}
}

// TestRoles calls every method as everyone. An empty request changes nothing, but it tells a caller who may not from one
// whose request is wrong.
func TestRoles(t *testing.T) {
	n := openNode(t, node.Limits{})
	people := newSite(t)
	h := serve(t, Config{Node: n, Credentials: people.member})
	for _, test := range []struct {
		name        string
		credentials *pki.Credentials
		role        pki.Role
	}{
		{"member", people.member, pki.RoleViewer},
		{"viewer", people.viewer, pki.RoleViewer},
		{"operator", people.operator, pki.RoleOperator},
		{"administrator", people.administrator, pki.RoleAdministrator},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := h.dial(t, test.credentials)
			for _, m := range methods(t) {
				if m.Name() == "TransferLeadership" && test.role >= pki.RoleAdministrator {
					continue // its empty request is a good one
				}
				denied := status.Code(callEmpty(t, conn, m)) == codes.PermissionDenied
				if want := test.role < rules[fullName(m)].role; denied != want {
					t.Errorf("%s: denied %v, want %v", m.FullName(), denied, want)
				}
			}
		})
	}
}

// callEmpty sends an empty request and returns the error of the call or, for a stream, of its first message.
func callEmpty(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor) error {
	t.Helper()
	ctx := testContext(t)
	request, response := newMessage(t, m.Input()), newMessage(t, m.Output())
	if !m.IsStreamingServer() {
		return conn.Invoke(ctx, fullName(m), request, response)
	}
	// A watch from the future never has a message; one from a revision long ago has its end at once, or an event.
	if from := m.Input().Fields().ByName("from_revision"); from != nil {
		request.ProtoReflect().Set(from, protoreflect.ValueOfUint64(1))
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: m.IsStreamingClient()}, fullName(m))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(response)
}
