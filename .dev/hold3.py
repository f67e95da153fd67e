import sys, glob, torch, os
torch.set_num_threads(1)
from xdyna.synthbench.measures import *
from xdyna.evaluation.scene_motion import background, motion_where
from xdyna.pipeline import XDynaPipeline
from xdyna.synthbench.generation import Animator
from xdyna.sampling import still as S
pipe=XDynaPipeline.from_pretrained("embedded",device="cpu"); an=Animator(pipe,refine_face=False)
d=sys.argv[1]; 
sets=[None,(.08,.2,2.0,.8)]
tot=[dict(ps=[],st=[],sm=[],pt=[]) for _ in sets]
for f in sorted(glob.glob(d+'/*.pt')):
    z=torch.load(f,weights_only=False); t=z['truth']; row=[]; x=z['lat'].float(); bg=background(t.mask); tm=motion_where(t.frames,bg).item()
    r=z['ref'].reshape(1,-1,*x.shape[-2:])
    for i,s in enumerate(sets):
        if s is None: v=z['video'].float()/255
        else:
            S.STILL,S.ALIVE,S.MOMENT,S.BODY=s
            y=S.hold_still(x.transpose(0,1).contiguous()[None],r,z["body"][0,1:],z["body"][0,0],size=(256,256))
            v=an.decoded(y[0].transpose(0,1))[None]
        p=psnr(v,t.frames).item(); m=motion_where(v,bg).item(); row.append((p,m))
        T=tot[i]
        if t.still[0] and t.human[0]: T['ps'].append(p)
        if t.still[0]: T['st'].append(m)
        elif not t.company[0]: T['sm'].append(m/tm if tm>.5 else float('nan')); T['pt'].append((m,tm))
    print(os.path.basename(f),'H' if t.human[0] else '-','C' if t.company[0] else '','still' if t.still[0] else f'{tm:.2f}','|',' | '.join(f'{a:.2f} {b:.2f}' for a,b in row),flush=True)
import statistics as st
for s,T in zip(sets,tot):
    a=[v for v in T['sm'] if v==v]
    print(s,'psnr_still %.2f walls %.2f motion(sum) %.3f median %.3f n %d %d'%(st.mean(T['ps']),st.mean(T['st']),sum(m for m,t in T['pt'] if t>.5)/sum(t for m,t in T['pt'] if t>.5),st.median(a),len(T['st']),len(a)))
